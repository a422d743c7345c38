#!/bin/bash
# User data of an ECS container instance (Amazon ECS-optimized AMI): joins the cluster, and installs
# the plugin before the ECS agent starts, because the agent reports to the cluster which volume
# drivers it finds. It can run again, or on an AMI that already has the plugin: it skips completed
# steps. If it fails, the instance joins the cluster all the same, and ECS places no task on it that
# needs the plugin.
set -euo pipefail
cluster=${cluster:-default}
tarball=${tarball:-s3://my-bucket/polarity-ecs-ebs-plugin.amd64.tar.gz}
# The tarball's SHA-256, from sha256sum. No other file is installed.
sha256=${sha256:-}
# Settings for `docker plugin set`, for example DETACH_AFTER=5m TAKEOVER=never.
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
    # Just after the launch the role's credentials may not be available yet.
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
