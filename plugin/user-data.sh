#!/bin/bash
# User data of an ECS container instance (Amazon ECS-optimized AMI): joins the cluster, and installs
# the plugin before the ECS agent starts, which tells the cluster of the volume drivers it finds. It
# may run again, or where the plugin is in the AMI already: what is done stays as it is. An instance on
# which it fails joins all the same, and is given no task that needs the plugin.
set -euo pipefail
cluster=${cluster:-default}
tarball=${tarball:-s3://my-bucket/polarity-ecs-ebs-plugin.amd64.tar.gz}
# What sha256sum prints of the tarball. Another file is not installed.
sha256=${sha256:-}
# For `docker plugin set`, such as DETACH_AFTER=5m TAKEOVER=never.
settings=${settings:-}

name=polarity-ecs-ebs-plugin
fail() {
    echo "$name is not installed: $1" >&2
    exit 1
}

grep -sqxF "ECS_CLUSTER=$cluster" /etc/ecs/ecs.config ||
    echo "ECS_CLUSTER=$cluster" >> /etc/ecs/ecs.config

if ! docker plugin inspect "$name" > /dev/null 2>&1; then
    command -v aws > /dev/null || dnf install -y awscli || yum install -y awscli
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # Just after the launch the role's credentials may not be there yet.
    for pause in 2 4 8 16 32 0; do
        aws s3 cp --only-show-errors "$tarball" "$folder/tarball" && break
        [ "$pause" != 0 ] || fail "$tarball cannot be downloaded"
        sleep "$pause"
    done
    echo "$sha256  $folder/tarball" | sha256sum --check --status ||
        fail "the SHA-256 of $tarball is $(sha256sum < "$folder/tarball"), and not '$sha256'"
    mkdir "$folder/plugin"
    tar -xzf "$folder/tarball" -C "$folder/plugin" || fail "$tarball cannot be unpacked"
    docker plugin create "$name" "$folder/plugin"
fi
if [ "$(docker plugin inspect --format '{{.Enabled}}' "$name")" != true ]; then
    echo "$settings" | xargs --no-run-if-empty docker plugin set "$name"
    docker plugin enable --timeout 120 "$name" ||
        fail "it does not start; its last line in 'journalctl -u docker' says why"
fi
