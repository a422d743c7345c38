"""Tests containers on EBS volumes, as a user runs them."""

import subprocess
import time

import pytest

from host import ELSEWHERE, HERE


def attached_to(host, volume):
    attachments = host.simulator.ec2().describe_volumes(
        Filters=[{"Name": "volume-id", "Values": [volume]}])["Volumes"][0]["Attachments"]
    return [attachment["InstanceId"] for attachment in attachments]


def file_system_uuid(host, volume):
    return subprocess.run(
        ["blkid", "-p", "-s", "UUID", "-o", "value", host.simulator.backing(volume)], check=True,
        capture_output=True, text=True).stdout


def wait_until_free(host, volume):
    """Waits until the linger of an unused volume ends with its detachment."""
    host.simulator.wait_for_volume(volume, "available", timeout=90)


def test_a_fresh_volume_is_formatted_and_keeps_what_is_written(host, new_volume):
    volume = new_volume()
    host.create(volume)
    kind = host.run(volume, "grep ' /data ' /proc/mounts; echo hello > /data/file").split()[2]
    assert kind == "xfs"
    assert host.run(volume, "cat /data/file") == "hello\n"
    wait_until_free(host, volume)
    assert host.mounts(volume) == []
    assert host.run(volume, "cat /data/file") == "hello\n"


def test_a_run_without_create_makes_the_volume_known(host, new_volume):
    volume = new_volume()
    host.run(volume, "echo hello > /data/file")
    assert host.run(volume, "cat /data/file") == "hello\n"


def test_a_formatted_volume_is_mounted_as_it_is(host, new_volume):
    volume = new_volume(content="xfs")
    uuid = file_system_uuid(host, volume)
    host.run(volume, "echo kept > /data/file")
    wait_until_free(host, volume)
    assert file_system_uuid(host, volume) == uuid
    host.simulator.reset_counters()
    assert host.run(volume, "cat /data/file") == "kept\n"
    mount = next(m for m in reversed(host.timelines()) if m["volume"] == volume)
    assert mount.get("format_ms", 0) == 0
    assert host.simulator.calls("AttachVolume") == 1


def test_an_ext4_volume_with_data_is_left_as_it_is(host, new_volume):
    volume = new_volume(content="ext4")
    output = host.run(volume, "grep ' /data ' /proc/mounts; ls /data; echo hello > /data/file")
    assert output.split()[2] == "ext4"
    assert "lost+found" in output
    assert host.run(volume, "cat /data/file") == "hello\n"


def test_a_volume_attached_elsewhere_is_taken_over(host, new_volume):
    volume = new_volume(content="xfs", attachedTo={"instance": ELSEWHERE, "device": "/dev/sdf"})
    assert attached_to(host, volume) == [ELSEWHERE]
    container = host.start(volume, "echo mine > /data/file; sleep 60")
    assert attached_to(host, volume) == [HERE]
    host.engine.docker("rm", "--force", container)
    assert host.run(volume, "cat /data/file") == "mine\n"


def test_the_second_container_keeps_the_volume_when_the_first_leaves(host, new_volume):
    volume = new_volume()
    first = host.start(volume, "sleep 60")
    second = host.start(volume, "sleep 60")
    host.engine.docker("rm", "--force", first)
    # Longer than the linger, in which a volume wrongly taken for unused would be detached.
    time.sleep(2)
    host.engine.docker("exec", second, "sh", "-c", "echo still > /data/file && sync /data/file")
    assert host.engine.docker("exec", second, "cat", "/data/file").stdout == "still\n"
    assert attached_to(host, volume) == [HERE]
    host.engine.docker("rm", "--force", second)
    wait_until_free(host, volume)
    assert host.mounts(volume) == []


def test_docker_cp_during_a_run_leaves_the_container_its_volume(host, new_volume, tmp_path):
    volume = new_volume()
    container = host.start(volume, "echo inside > /data/file; sleep 60")
    (tmp_path / "copied").write_text("from outside\n")
    host.engine.docker("cp", tmp_path / "copied", f"{container}:/data/copied")
    host.engine.docker("cp", f"{container}:/data/file", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "inside\n"
    time.sleep(2)
    script = "echo more >> /data/copied && cat /data/copied"
    read = host.engine.docker("exec", container, "sh", "-c", script).stdout
    assert read == "from outside\nmore\n"
    assert attached_to(host, volume) == [HERE]
    host.engine.docker("rm", "--force", container)
    wait_until_free(host, volume)


def test_create_with_image_content_copies_it_and_attaches_once(host, new_volume):
    volume = new_volume()
    host.create(volume)
    host.simulator.reset_counters()
    container = host.engine.docker(
        "create", "--network", "none", "-v", f"{volume}:/data", "seeded", "cat", "/data/seed",
    ).stdout.strip()
    assert host.engine.docker("start", "--attach", container).stdout == "from the image\n"
    assert host.simulator.calls("AttachVolume") == 1
    host.engine.docker("rm", container)
    assert host.run(volume, "cat /data/seed") == "from the image\n"


def test_eight_volumes_at_once_come_to_eight_containers(host, new_volume):
    volumes = [new_volume() for _ in range(8)]
    host.simulator.reset_counters()
    script = "echo $HOSTNAME > /data/me; cat /data/me"
    started = [host.engine.start_docker(
        "run", "--rm", "--hostname", volume, "--network", "none", "--volume-driver",
        "polarity-ecs-ebs-plugin", "-v", f"{volume}:/data", "box", "sh", "-c", script)
        for volume in volumes]
    printed = [docker.communicate(timeout=120) for docker in started]
    assert printed == [(f"{volume}\n", "") for volume in volumes]
    assert host.simulator.calls("AttachVolume") == 8


def test_volume_rm_keeps_the_data(host, new_volume):
    volume = new_volume()
    host.create(volume)
    host.run(volume, "echo precious > /data/file")
    host.engine.docker("volume", "rm", volume)
    assert volume not in host.engine.docker("volume", "ls", "--quiet").stdout.split()
    assert host.simulator.volume(volume)["state"] in ("in-use", "available")
    assert host.run(volume, "cat /data/file") == "precious\n"


def test_volume_rm_is_refused_while_a_container_uses_it(host, new_volume):
    volume = new_volume()
    container = host.start(volume, "sleep 60")
    refused = host.engine.docker("volume", "rm", volume, check=False)
    assert refused.returncode != 0
    assert "in use" in refused.stderr
    assert host.engine.docker("exec", container, "touch", "/data/file").returncode == 0
    host.engine.docker("rm", "--force", container)


def test_a_created_volume_is_listed_and_inspected(host, new_volume):
    volume = new_volume()
    host.create(volume)
    host.create(volume)
    assert volume in host.engine.docker("volume", "ls", "--quiet").stdout.split()
    inspected = host.engine.docker(
        "volume", "inspect", "--format", "{{.Driver}} {{.Scope}}", volume).stdout.split()
    assert inspected == ["polarity-ecs-ebs-plugin:latest", "local"]


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_container_ended_by_a_signal_gives_its_volume_back(host, new_volume, signal):
    volume = new_volume()
    container = host.start(volume, "sleep 60")
    host.engine.docker("kill", "--signal", signal, container)
    host.engine.docker("wait", container)
    wait_until_free(host, volume)
    assert host.mounts(volume) == []
    host.engine.docker("rm", "--force", container)
