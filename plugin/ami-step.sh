#!/bin/bash
# A step of an AMI build (Packer's shell provisioner, EC2 Image Builder), run as root on the Amazon
# ECS-optimized AMI with the tarball, and the SHA256SUMS of its release, in the current folder.
# Instances of the image start with the plugin enabled, because Docker keeps its plugins in
# /var/lib/docker. It can run again.
set -euo pipefail
name=polarity-ecs-ebs-plugin
tarball="$name.$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/').tar.gz"

systemctl start docker
if ! docker plugin inspect "$name" > /dev/null 2>&1; then
    grep -F "  $tarball" SHA256SUMS | sha256sum --check --quiet || {
        echo "$tarball does not match SHA256SUMS" >&2
        exit 1
    }
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    tar -xzf "$tarball" -C "$folder"
    docker plugin create "$name" "$folder"
fi
if [ "$(docker plugin inspect --format '{{.Enabled}}' "$name")" != true ]; then
    docker plugin enable --timeout 120 "$name"
fi
