"""Tests the life of volumes with the simulator, real loop devices and real file systems."""

import hashlib
import os
import pathlib
import stat
import subprocess

import pytest

from conftest import HERE, THERE, XEN
from daemon import PluginError, answer_of


def is_mounted(path):
    return os.path.ismount(path)


def test_data_is_there_again_after_the_volume_was_given_back(simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume)
    (daemon.mount(volume) / "file").write_text("kept")
    daemon.unmount(volume)
    simulator.wait_for_volume(volume, "available")
    assert (daemon.mount(volume) / "file").read_text() == "kept"


def test_a_fresh_volume_costs_one_ec2_call_and_one_attached_here_none(simulator, start, new_volume):
    daemon = start(DETACH_AFTER="never")
    volume = new_volume()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    daemon.create(volume)
    simulator.reset_counters()
    daemon.mount(volume)
    assert simulator.counters()["calls"] == {
        "AttachVolume": 1, "CreateTags": 1, "DescribeVolumes": 1}
    daemon.unmount(volume)
    simulator.reset_counters()
    daemon.mount(volume)
    assert simulator.counters()["calls"] == {}


@pytest.mark.parametrize("content", ["xfs", "ext4"])
def test_a_file_system_is_mounted_as_it_is(daemon, new_volume, content):
    volume = new_volume(content=content)
    daemon.create(volume)
    mountpoint = daemon.mount(volume)
    found = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", mountpoint], check=True,
                           capture_output=True, text=True).stdout.strip()
    assert found == content
    assert "creating a file system" not in daemon.log()


def test_a_partitioned_volume_is_refused_and_not_changed(simulator, daemon, new_volume):
    volume = new_volume(content="partitioned")
    backing = simulator.backing(volume)
    before = hashlib.sha256(backing.read_bytes()).digest()
    daemon.create(volume)
    with pytest.raises(PluginError, match="partition"):
        daemon.mount(volume)
    assert daemon.call("VolumeDriver.Get", Name=volume)["Volume"]["Mountpoint"] == ""
    simulator.wait_for_volume(volume, "available")
    assert hashlib.sha256(backing.read_bytes()).digest() == before


def test_a_xen_instance_finds_its_volumes_by_their_names(start, new_volume):
    daemon = start(XEN)
    volume = new_volume()
    daemon.create(volume)
    (daemon.mount(volume) / "file").write_text("kept")
    device = daemon.call("VolumeDriver.Get", Name=volume)["Volume"]["Status"]["device"]
    assert pathlib.Path(device).name.startswith("xvd")


def test_on_xen_a_disk_that_has_the_node_already_is_not_taken_for_the_volume(
        simulator, start, new_volume, tmp_path):
    daemon = start(XEN)
    volume = new_volume()
    other = tmp_path / "other"
    other.touch()
    os.truncate(other, 320 << 20)
    subprocess.run(["mkfs.xfs", "-q", other], check=True, timeout=60)
    loop = subprocess.run(["losetup", "--find", "--show", other], check=True, capture_output=True,
                          text=True, timeout=60).stdout.strip()
    node = pathlib.Path(daemon.environment["DEV_PATH"]) / "xvdf"
    try:
        os.mknod(node, 0o600 | stat.S_IFBLK, os.stat(loop).st_rdev)
        before = hashlib.sha256(other.read_bytes()).digest()
        daemon.create(volume)
        (daemon.mount(volume) / "file").write_text("kept")
        status = daemon.call("VolumeDriver.Get", Name=volume)["Volume"]["Status"]
        assert status["attachedAs"] == "/dev/sdg"
        assert pathlib.Path(status["device"]).name == "xvdg"
        daemon.unmount(volume)
        simulator.wait_for_volume(volume, "available")
        assert hashlib.sha256(other.read_bytes()).digest() == before
    finally:
        node.unlink(missing_ok=True)
        subprocess.run(["losetup", "--detach", loop], check=True, timeout=60)


def test_a_file_system_that_has_shut_down_is_mounted_anew(daemon, new_volume):
    volume = new_volume()
    daemon.create(volume)
    mountpoint = daemon.mount(volume, id="first")
    (mountpoint / "file").write_text("kept")
    os.sync()
    subprocess.run(["xfs_io", "-x", "-c", "shutdown", mountpoint], check=True, timeout=60)
    with pytest.raises(OSError):
        os.stat(mountpoint)
    daemon.mount(volume, id="second")
    assert (mountpoint / "file").read_text() == "kept"
    assert "has shut down" in daemon.log()
    daemon.unmount(volume, id="first")
    assert os.path.ismount(mountpoint)
    daemon.unmount(volume, id="second")
    assert not os.path.ismount(mountpoint)


def test_a_volume_is_taken_over_from_another_instance_with_its_data(
        simulator, start, new_volume):
    here, there = start(HERE), start(THERE, DETACH_AFTER="never")
    volume = new_volume()
    there.create(volume)
    (there.mount(volume) / "file").write_text("from there")
    there.unmount(volume)
    here.create(volume)
    assert (here.mount(volume) / "file").read_text() == "from there"
    attachments = simulator.volume(volume)["attachments"]
    assert [a["instance"] for a in attachments] == [HERE]


def test_8_volumes_at_once_are_all_mounted(daemon, new_volume):
    volumes = [new_volume(content="xfs") for _ in range(8)]
    for volume in volumes:
        daemon.create(volume)
    calls = [daemon.start_call("VolumeDriver.Mount", Name=v, ID="x") for v in volumes]
    mountpoints = [answer_of(call)["Mountpoint"] for call in calls]
    assert all(is_mounted(path) for path in mountpoints)
    sources = {os.stat(path).st_dev for path in mountpoints}
    assert len(sources) == 8


def test_two_volumes_with_one_uuid_are_mounted_side_by_side(simulator, daemon, new_volume):
    """As two made from one snapshot are."""
    volumes = [new_volume(content="xfs"), new_volume(content="xfs")]
    for volume in volumes:
        file = simulator.backing(volume)
        subprocess.run(["xfs_admin", "-U", "11111111-2222-4333-8444-555555555555", file],
                       check=True, capture_output=True)
        daemon.create(volume)
    assert all(is_mounted(daemon.mount(volume)) for volume in volumes)


def test_a_mount_whose_client_hung_up_goes_on_and_is_not_counted(simulator, daemon, new_volume):
    simulator.latency(device=500)
    try:
        volume = new_volume(content="xfs")
        daemon.create(volume)
        cut = daemon.start_call("VolumeDriver.Mount", Name=volume, ID="cut")
        daemon.wait_until(lambda d: d.phase(volume) == "mounting")
        cut.close()
        mountpoint = daemon.mount(volume, "retry")
        assert is_mounted(mountpoint)
        daemon.unmount(volume, "retry")
        assert not is_mounted(mountpoint)
    finally:
        simulator.latency(device=30)


def test_a_file_system_in_use_is_not_unmounted_and_its_holder_is_named(daemon, new_volume):
    volume = new_volume(content="xfs")
    daemon.create(volume)
    mountpoint = daemon.mount(volume)
    holder = subprocess.Popen(["sleep", "600"], cwd=mountpoint)
    try:
        with pytest.raises(PluginError, match=str(holder.pid)):
            daemon.unmount(volume)
        assert is_mounted(mountpoint)
    finally:
        holder.kill()
        holder.wait()
