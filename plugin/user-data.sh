#!/bin/bash
# User data of an ECS container instance (Amazon ECS-optimized AMI): joins the cluster, and installs
# the plugin before the ECS agent starts, which tells the cluster of the volume drivers it finds.
set -euo pipefail
cluster=default
tarball=s3://my-bucket/polarity-ecs-ebs-plugin.amd64.tar.gz

echo "ECS_CLUSTER=$cluster" >> /etc/ecs/ecs.config

command -v aws > /dev/null || dnf install -y awscli
folder=$(mktemp -d)
aws s3 cp --only-show-errors "$tarball" - | tar -xz -C "$folder"
docker plugin create polarity-ecs-ebs-plugin "$folder"
docker plugin enable --timeout 120 polarity-ecs-ebs-plugin
rm -rf "$folder"
