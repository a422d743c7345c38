#!/bin/bash
# A step of an AMI build (Packer's shell provisioner, EC2 Image Builder), run as root on the Amazon
# ECS-optimized AMI with the tarball in the current folder: instances made from the image
# start with the plugin enabled, for Docker keeps its plugins in /var/lib/docker.
set -euo pipefail
arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')

systemctl start docker
folder=$(mktemp -d)
tar -xzf "polarity-ecs-ebs-plugin.$arch.tar.gz" -C "$folder"
docker plugin create polarity-ecs-ebs-plugin "$folder"
docker plugin enable --timeout 120 polarity-ecs-ebs-plugin
rm -rf "$folder"
