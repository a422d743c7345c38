"""Tests what the options of a volume do, with the simulator and real file systems."""

import hashlib
import os
import shutil
import stat
import subprocess

import pytest

from conftest import HERE, XEN
from daemon import PluginError, runner


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def mounted(mountpoint, column):
    return run("findmnt", "-n", "-o", column, mountpoint).strip()


def digest(path):
    return hashlib.sha256(path.read_bytes()).digest()


def free_again(simulator, daemon, volume):
    daemon.unmount(volume)
    simulator.wait_for_volume(volume, "available")


# What an option's value may be


@pytest.mark.parametrize("name, value", [
    ("fs-type", "btrfs"), ("fs-type", ""), ("uid", "-1"), ("uid", "postgres"), ("uid", "4294967295"),
    ("gid", "+1"), ("gid", ""), ("mode", "rwx"), ("mode", "0888"), ("mode", "10000"),
    ("read-only", "maybe"), ("mkfs-legacy", "2"), ("takeover", "sometimes"), ("partition", "0"),
    ("partition", "129"), ("partition", "p1"), ("volume-id", "vol-xyz"), ("volume-id", "../etc"),
    ("mount-options", "noatime,nobarrier"), ("mount-options", "ro"), ("mount-options", "norecovery"),
    ("mount-options", "logbufs=9"), ("mount-options", "bind"), ("mount-options", "noatime=1"),
])
def test_a_value_that_an_option_does_not_take_is_refused_by_name(
        simulator, daemon, new_volume, name, value):
    volume = new_volume()
    with pytest.raises(PluginError) as refusal:
        daemon.create(volume, **{name: value})
    assert f"{name}=" in str(refusal.value)
    assert daemon.call("VolumeDriver.List")["Volumes"] in (None, [])


def test_an_unknown_option_is_refused_and_the_known_ones_are_named(daemon, new_volume):
    with pytest.raises(PluginError) as refusal:
        daemon.create(new_volume(), colour="red")
    for name in ["colour", "fs-type", "gid", "mkfs-legacy", "mode", "mount-options", "partition",
                 "read-only", "takeover", "uid", "volume-id"]:
        assert name in str(refusal.value)


# Formatting


def test_ext4_by_option_holds_data_over_a_remount(simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume, **{"fs-type": "ext4"})
    mountpoint = daemon.mount(volume)
    assert mounted(mountpoint, "FSTYPE") == "ext4"
    (mountpoint / "file").write_text("kept")
    free_again(simulator, daemon, volume)
    assert (daemon.mount(volume) / "file").read_text() == "kept"
    assert daemon.log().count("creating a file system") == 1


def test_ext4_by_setting_and_another_by_option(start, new_volume):
    daemon = start(FS_TYPE="ext4")
    plain, other = new_volume(), new_volume()
    daemon.create(plain)
    daemon.create(other, **{"fs-type": "xfs"})
    assert mounted(daemon.mount(plain), "FSTYPE") == "ext4"
    assert mounted(daemon.mount(other), "FSTYPE") == "xfs"


def test_a_file_system_of_another_type_than_asked_for_stays(daemon, new_volume):
    volume = new_volume(content="xfs")
    daemon.create(volume, **{"fs-type": "ext4"})
    assert mounted(daemon.mount(volume), "FSTYPE") == "xfs"


def test_a_legacy_xfs_has_only_what_old_kernels_know(daemon, new_volume):
    volume = new_volume()
    daemon.create(volume, **{"mkfs-legacy": "true"})
    described = run("xfs_info", str(daemon.mount(volume)))
    for feature in ["reflink=0", "bigtime=0", "inobtcount=0"]:
        assert feature in described


def test_a_legacy_ext4_has_only_what_old_kernels_know(simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume, **{"mkfs-legacy": "true", "fs-type": "ext4"})
    daemon.mount(volume)
    free_again(simulator, daemon, volume)
    described = run("dumpe2fs", "-h", str(simulator.backing(volume)))
    assert "metadata_csum" in described
    assert "orphan_file" not in described and "metadata_csum_seed" not in described


@pytest.mark.parametrize("type", ["xfs", "ext4"])
def test_owner_and_mode_are_set_once_and_then_the_user_s(simulator, daemon, new_volume, type):
    volume = new_volume()
    daemon.create(volume, **{"uid": "999", "gid": "70", "mode": "2770", "fs-type": type})
    mountpoint = daemon.mount(volume)
    status = mountpoint.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (999, 70, 0o2770)
    os.chmod(mountpoint, 0o711)
    os.chown(mountpoint, 5, 6)
    free_again(simulator, daemon, volume)
    status = daemon.mount(volume).stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o711)


def test_the_owner_of_a_file_system_that_was_there_stays(daemon, new_volume):
    volume = new_volume(content="xfs")
    daemon.create(volume, uid="999", mode="0700")
    status = daemon.mount(volume).stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755)


# Mounting


@pytest.mark.parametrize("type, given, shown", [
    ("xfs", "noatime,nosuid,nodev,noexec,logbufs=4,logbsize=64k,inode64",
     ["noatime", "nosuid", "nodev", "noexec", "logbufs=4", "logbsize=64k", "inode64"]),
    ("ext4", "nodiratime,lazytime,sync,discard", ["nodiratime", "lazytime", "sync", "discard"]),
    ("ext4", "relatime", ["relatime"]),
])
def test_mount_options_are_in_force(daemon, new_volume, type, given, shown):
    volume = new_volume()
    daemon.create(volume, **{"mount-options": given, "fs-type": type})
    options = mounted(daemon.mount(volume), "OPTIONS").split(",")
    assert set(shown) <= set(options)


def test_a_mount_option_for_another_file_system_is_an_error_at_mount(daemon, new_volume):
    volume = new_volume(content="ext4")
    daemon.create(volume, **{"mount-options": "logbufs=4"})
    with pytest.raises(PluginError, match="logbufs=4.*xfs"):
        daemon.mount(volume)


@pytest.mark.parametrize("content", ["xfs", "ext4"])
def test_norecovery_changes_nothing_on_the_volume(simulator, daemon, new_volume, content):
    volume = new_volume(content=content)
    before = digest(simulator.backing(volume))
    daemon.create(volume, **{"read-only": "true", "mount-options": "norecovery"})
    mountpoint = daemon.mount(volume)
    assert "ro" in mounted(mountpoint, "OPTIONS").split(",")
    with pytest.raises(OSError):
        (mountpoint / "file").touch()
    free_again(simulator, daemon, volume)
    assert digest(simulator.backing(volume)) == before


@pytest.fixture
def crashed(simulator, daemon, new_volume):
    """Makes a volume with a synced file whose instance died: its journal is not empty."""
    def make(type, **fields):
        origin, copy = new_volume(), new_volume(**fields)
        daemon.create(origin, **{"fs-type": type})
        with open(daemon.mount(origin) / "file", "w") as file:
            file.write("kept")
            file.flush()
            os.fsync(file.fileno())
        shutil.copyfile(simulator.backing(origin), simulator.backing(copy))
        return copy
    return make


def contents_of(daemon, volume):
    """What Get's Status says about the contents; nothing if they are complete."""
    return daemon.call("VolumeDriver.Get", Name=volume)["Volume"]["Status"].get("contents", "")


@pytest.mark.parametrize("type", ["xfs", "ext4"])
def test_read_only_shows_what_was_synced_before_a_crash(daemon, crashed, type):
    volume = crashed(type)
    daemon.create(volume, **{"read-only": "true"})
    assert (daemon.mount(volume) / "file").read_text() == "kept"
    assert contents_of(daemon, volume) == ""


@pytest.mark.parametrize("type", ["xfs", "ext4"])
@pytest.mark.parametrize("reason", ["norecovery", "Multi-Attach"])
def test_without_a_replay_nothing_is_written_and_the_user_is_told(
        simulator, daemon, crashed, type, reason):
    shared = reason == "Multi-Attach"
    volume = crashed(type, multiAttachEnabled=shared)
    before = digest(simulator.backing(volume))
    options = {} if shared else {"mount-options": "norecovery"}
    daemon.create(volume, **{"read-only": "true"}, **options)
    daemon.mount(volume)
    assert "older than what was written" in contents_of(daemon, volume)
    assert "older than what was written" in daemon.log()
    daemon.kill()
    daemon.start()
    assert "older than what was written" in contents_of(daemon, volume)
    free_again(simulator, daemon, volume)
    assert contents_of(daemon, volume) == ""
    assert digest(simulator.backing(volume)) == before


def test_norecovery_takes_read_only(daemon, new_volume):
    with pytest.raises(PluginError, match="read-only=true"):
        daemon.create(new_volume(), **{"mount-options": "norecovery"})


def test_a_blank_volume_read_only_is_refused_and_stays_blank(simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume, **{"read-only": "true"})
    with pytest.raises(PluginError, match="empty.*read-only"):
        daemon.mount(volume)
    simulator.wait_for_volume(volume, "available")
    assert not any(simulator.backing(volume).read_bytes())


def test_two_volumes_from_one_snapshot_are_mounted_at_once(simulator, daemon, new_volume):
    first, second = new_volume(content="xfs"), new_volume()
    shutil.copyfile(simulator.backing(first), simulator.backing(second))
    for volume in (first, second):
        daemon.create(volume)
        (daemon.mount(volume) / "file").write_text(volume)
    assert (daemon.mount(first, id="again") / "file").read_text() == first


@pytest.mark.parametrize("type", ["xfs", "ext4"])
def test_a_file_system_that_was_not_unmounted_has_what_was_synced(
        simulator, daemon, new_volume, type):
    crashed, copy = new_volume(), new_volume()
    daemon.create(crashed, **{"fs-type": type})
    with open(daemon.mount(crashed) / "file", "w") as file:
        file.write("kept")
        file.flush()
        os.fsync(file.fileno())
    shutil.copyfile(simulator.backing(crashed), simulator.backing(copy))
    daemon.create(copy)
    assert (daemon.mount(copy) / "file").read_text() == "kept"


# What lies over a file system


@pytest.fixture
def partitioned_over_ext4(simulator, new_volume):
    """Makes a volume that was completely formatted as ext4, and then got a partition with an
    xfs."""
    def make():
        volume = new_volume(content="ext4")
        backing = simulator.backing(volume)
        subprocess.run(["sfdisk", "-q", backing], input="2048,\n", check=True, text=True, timeout=60)
        loop = run("losetup", "--find", "--show", "--offset", str(1 << 20), backing).strip()
        try:
            run("mkfs.xfs", "-q", "-f", loop)
        finally:
            run("losetup", "--detach", loop)
        return volume
    return make


def test_a_partition_table_over_a_file_system_is_refused_with_both_named(
        simulator, daemon, partitioned_over_ext4):
    volume = partitioned_over_ext4()
    before = digest(simulator.backing(volume))
    daemon.create(volume)
    with pytest.raises(PluginError, match="ext4 and dos partition table.*partition=1"):
        daemon.mount(volume)
    simulator.wait_for_volume(volume, "available")
    assert digest(simulator.backing(volume)) == before


def test_the_partition_itself_is_mounted_where_it_is_asked_for(daemon, partitioned_over_ext4):
    volume = partitioned_over_ext4()
    daemon.create(volume, partition="1")
    assert mounted(daemon.mount(volume), "FSTYPE") == "xfs"


# Repair and growth


@pytest.mark.parametrize("due", [["-c", "1", "-C", "7"], ["-i", "1d", "-T", "20200101"]])
def test_an_ext4_whose_check_is_merely_due_is_mounted_at_once(simulator, daemon, new_volume, due):
    volume = new_volume(content="ext4")
    run("tune2fs", *due, simulator.backing(volume))
    daemon.create(volume)
    daemon.mount(volume)
    assert "checked before mounting" not in daemon.log()


@pytest.mark.parametrize("content", ["xfs", "ext4"])
def test_a_file_system_larger_than_its_volume_is_told_with_both_sizes(
        simulator, daemon, new_volume, content):
    volume = new_volume()
    backing = simulator.backing(volume)
    os.truncate(backing, 1 << 30)
    run(f"mkfs.{content}", "-q", backing)
    os.truncate(backing, 320 << 20)
    daemon.create(volume)
    with pytest.raises(PluginError, match=f"{1 << 30} bytes long, and the device only {320 << 20}"):
        daemon.mount(volume)


def test_an_ext4_that_asks_for_a_check_is_checked_before_it_is_mounted(
        simulator, daemon, new_volume):
    volume = new_volume(content="ext4")
    backing = simulator.backing(volume)
    run("debugfs", "-w", "-R", "set_super_value free_blocks_count 17", backing)
    run("debugfs", "-w", "-R", "set_super_value state 2", backing)
    daemon.create(volume)
    daemon.mount(volume)
    assert "checked before mounting" in daemon.log()
    free_again(simulator, daemon, volume)
    run("e2fsck", "-f", "-n", backing)


def test_an_ext4_that_cannot_be_mended_is_not_mounted(simulator, daemon, new_volume):
    volume = new_volume(content="ext4")
    run("debugfs", "-w", "-R", "clri <2>", simulator.backing(volume))
    run("debugfs", "-w", "-R", "set_super_value state 2", simulator.backing(volume))
    daemon.create(volume)
    with pytest.raises(PluginError, match="e2fsck.*UNEXPECTED INCONSISTENCY"):
        daemon.mount(volume)
    simulator.wait_for_volume(volume, "available")


@pytest.mark.skipif(bool(runner()), reason="QEMU passes on no ioctl that grows a file system")
def test_a_volume_that_was_modified_has_its_new_size_after_the_next_mount(
        simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume)
    mountpoint = daemon.mount(volume)
    (mountpoint / "file").write_text("kept")
    before = os.statvfs(mountpoint)
    free_again(simulator, daemon, volume)
    simulator.ec2().modify_volume(VolumeId=volume, Size=2)
    after = os.statvfs(daemon.mount(volume))
    assert after.f_blocks * after.f_frsize > before.f_blocks * before.f_frsize + (1600 << 20)
    assert (mountpoint / "file").read_text() == "kept"
    assert "was grown" in daemon.log()


def test_a_file_system_that_does_not_grow_is_mounted_all_the_same(simulator, daemon, new_volume):
    # What the kernel does not grow: an ext4 with errors that are known, or without the capability.
    volume = new_volume(content="ext4")
    simulator.ec2().modify_volume(VolumeId=volume, Size=2)
    daemon.create(volume)
    (daemon.mount(volume) / "file").write_text("written")
    assert ("was grown" in daemon.log()) != ("could not be grown" in daemon.log())


# Partitions


@pytest.fixture
def partitioned(simulator, new_volume):
    """Makes a volume whose only partition contains an xfs with a file."""
    def make():
        volume = new_volume(content="partitioned")
        backing = simulator.backing(volume)
        loop = run("losetup", "--find", "--show", "--offset", str(1 << 20), backing).strip()
        try:
            run("mkfs.xfs", "-q", loop)
        finally:
            run("losetup", "--detach", loop)
        return volume
    return make


@pytest.mark.parametrize("instance, name", [(HERE, "p1"), (XEN, "1")])
def test_a_partition_is_mounted_and_given_back(simulator, start, partitioned, instance, name):
    daemon = start(instance)
    volume = partitioned()
    daemon.create(volume, partition="1")
    mountpoint = daemon.mount(volume)
    assert mounted(mountpoint, "SOURCE").endswith(name)
    (mountpoint / "file").write_text("kept")
    free_again(simulator, daemon, volume)
    assert (daemon.mount(volume) / "file").read_text() == "kept"


def test_a_mounted_partition_outlives_the_daemon(simulator, start, partitioned):
    daemon = start()
    volume = partitioned()
    daemon.create(volume, partition="1")
    daemon.mount(volume)
    daemon.kill()
    daemon.start()
    assert (daemon.mount(volume, id="again")).is_mount()
    daemon.unmount(volume, id="again")
    free_again(simulator, daemon, volume)


def test_a_partitioned_volume_without_the_option_is_refused_with_a_hint(daemon, partitioned):
    volume = partitioned()
    daemon.create(volume)
    with pytest.raises(PluginError, match="partition="):
        daemon.mount(volume)


def test_a_partition_without_a_file_system_is_not_formatted(simulator, daemon, new_volume):
    volume = new_volume(content="partitioned")
    before = digest(simulator.backing(volume))
    daemon.create(volume, partition="1")
    with pytest.raises(PluginError, match="partitions are never formatted"):
        daemon.mount(volume)
    simulator.wait_for_volume(volume, "available")
    assert digest(simulator.backing(volume)) == before


def test_a_partition_that_is_not_there_is_named_beside_those_that_are(daemon, partitioned):
    volume = partitioned()
    daemon.create(volume, partition="2")
    with pytest.raises(PluginError, match=r"no nvme\d+n1p2 \(it shows: nvme\d+n1p1\)"):
        daemon.mount(volume)


# Over a restart


def test_options_outlive_the_daemon(start, new_volume):
    daemon = start()
    volume = new_volume()
    daemon.create(volume, **{
        "fs-type": "ext4", "uid": "7", "gid": "8", "mode": "0750", "mount-options": "noatime",
        "takeover": "never"})
    daemon.kill()
    daemon.start()
    mountpoint = daemon.mount(volume)
    status = mountpoint.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (7, 8, 0o750)
    assert mounted(mountpoint, "FSTYPE") == "ext4"
    assert "noatime" in mounted(mountpoint, "OPTIONS").split(",")
