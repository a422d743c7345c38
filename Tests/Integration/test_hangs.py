"""Tests volumes that do not respond, by freezing the file system that contains their bytes."""

import contextlib
import os
import pathlib
import subprocess
import time

import pytest

from daemon import PluginError, answer_of

# How long a Mount, a Create and an Unmount may take.
MOUNT, CREATE, UNMOUNT = 110, 50, 50


class Disk:
    """A file system that can be frozen: what is written to its files then waits."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.image = self.folder.with_suffix(".img")
        self.is_frozen = False
        with open(self.image, "wb") as image:
            image.truncate(16 << 30)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True, timeout=60)
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True, timeout=60)

    def move(self, simulator, volume):
        """Stores the volume's bytes here."""
        path = simulator.backing(volume)
        subprocess.run(["cp", "--sparse=always", path, self.folder / volume], check=True, timeout=60)
        os.unlink(path)
        os.symlink(self.folder / volume, path)

    def freeze(self):
        subprocess.run(["fsfreeze", "-f", self.folder], check=True, timeout=60)
        self.is_frozen = True

    def thaw(self):
        if self.is_frozen:
            subprocess.run(["fsfreeze", "-u", self.folder], check=True, timeout=60)
            self.is_frozen = False

    def close(self):
        self.thaw()
        # A loop device releases its file some time after its last user has gone.
        deadline = time.monotonic() + 60
        while subprocess.run(["umount", self.folder], capture_output=True, timeout=60).returncode:
            assert time.monotonic() < deadline, "the disk is still in use"
            time.sleep(0.1)
        os.unlink(self.image)


@pytest.fixture
def disk(simulator, tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.fixture
def daemon(disk, start):
    """Ends before the disk, which is thawed for that."""
    daemon = start(DETACH_AFTER="1s")
    yield daemon
    disk.thaw()


def sick_volumes(simulator, disk, new_volume, count=1, **fields):
    volumes = [new_volume(**fields) for _ in range(count)]
    for volume in volumes:
        disk.move(simulator, volume)
    return volumes


def seconds(call):
    """The error of the call (None if it succeeds), and how long it takes."""
    begin = time.monotonic()
    error = None
    try:
        call()
    except PluginError as refusal:
        error = str(refusal)
    return error, time.monotonic() - begin


def test_a_mount_whose_mkfs_hangs_is_answered_and_goes_on_when_the_volume_answers_again(
        simulator, daemon, disk, new_volume):
    [sick] = sick_volumes(simulator, disk, new_volume)
    daemon.create(sick)
    disk.freeze()
    error, taken = seconds(lambda: daemon.mount(sick))
    assert taken < MOUNT + 2
    for part in [f"cannot mount {sick}", "has not ended: ", "mkfs.xfs", "(since 20",
                 f"describe-volume-status --volume-ids {sick}", "dmesg"]:
        assert part in error
    health = daemon.health()
    assert health["status"] == "degraded"
    assert f"{sick} does not answer" in health["reason"] and "mkfs.xfs" in health["reason"]
    [hanging] = health["hanging"]
    assert hanging["volume"] == sick and hanging["since"] < health["timestamp"]
    # Docker's default is 30 s.
    error, taken = seconds(lambda: daemon.mount(sick))
    assert "mkfs.xfs" in error and taken < 25
    disk.thaw()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    daemon.wait_until(lambda d: d.phase(sick) != "mounting")
    children = pathlib.Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
    assert children.read_text() == ""
    daemon.wait_until(lambda d: d.threads() == 1)


@pytest.mark.parametrize("content, is_stuck", [
    ("blank", lambda d: programs(d).count("mkfs.xfs") == 16),
    ("xfs", lambda d: d.threads() > 16),
], ids=["in mkfs", "in mount(2)"])
def test_sixteen_volumes_that_hang_delay_no_other(
        simulator, daemon, disk, new_volume, content, is_stuck):
    sick = sick_volumes(simulator, disk, new_volume, 16, content=content)
    healthy, mounted, blank = new_volume(content="xfs"), new_volume(content="xfs"), new_volume()
    for volume in [*sick, mounted, blank]:
        daemon.create(volume)
    daemon.mount(mounted)
    disk.freeze()
    calls = [daemon.start_call("VolumeDriver.Mount", Name=volume, ID="x") for volume in sick]
    try:
        daemon.wait_until(is_stuck)
        slowest = 0
        for round in range(3):
            for call in [lambda: daemon.create(healthy), lambda: daemon.mount(healthy, f"{round}"),
                         lambda: daemon.mount(mounted, f"{round}"),
                         lambda: daemon.mount(blank, f"{round}"),
                         lambda: daemon.unmount(healthy, f"{round}"),
                         lambda: daemon.phase(sick[0]), lambda: daemon.health()]:
                error, taken = seconds(call)
                assert error is None
                slowest = max(slowest, taken)
        assert slowest < 10
    finally:
        disk.thaw()
        for call in calls:
            with contextlib.suppress(PluginError):
                answer_of(call)
    for volume in sick:
        assert os.path.ismount(daemon.mount(volume, "y"))


def test_more_unmounts_that_hang_than_there_are_workers_delay_no_other(
        simulator, daemon, disk, new_volume):
    """More than there are workers: each occupies one, in a system call that nothing can end."""
    sick = sick_volumes(simulator, disk, new_volume, 20, content="xfs")
    healthy = new_volume(content="xfs")
    for volume in sick:
        daemon.create(volume)
    for volume in sick:
        daemon.mount(volume)
        (daemon.mount_path / volume / "file").write_bytes(b"x" * 4096)
    disk.freeze()
    calls = [daemon.start_call("VolumeDriver.Unmount", Name=volume, ID="test") for volume in sick]
    try:
        daemon.wait_until(lambda d: d.threads() > 16)
        begin = time.monotonic()
        daemon.create(healthy)
        mountpoint = daemon.mount(healthy)
        assert time.monotonic() - begin < 10
        assert os.path.ismount(mountpoint)
        for call in calls:
            with pytest.raises(PluginError, match="has not ended: unmount vol-"):
                answer_of(call)
        assert time.monotonic() - begin < UNMOUNT + 10
        health = daemon.health()
        assert health["status"] == "degraded" and {h["volume"] for h in health["hanging"]} <= {*sick}
        assert daemon.threads() <= 2 * len(sick) + 16
    finally:
        disk.thaw()
    daemon.wait_until(lambda d: all(d.phase(v) in ("detached", "attached") for v in sick))
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    assert (daemon.mount(sick[0]) / "file").read_bytes() == b"x" * 4096
    daemon.unmount(sick[0])
    daemon.unmount(healthy)
    daemon.wait_until(lambda d: d.threads() == 1)


def test_a_second_container_on_a_volume_that_hangs_is_answered(
        simulator, daemon, disk, new_volume):
    [sick] = sick_volumes(simulator, disk, new_volume, content="xfs")
    daemon.create(sick)
    mountpoint = daemon.mount(sick, "a")
    disk.freeze()
    (mountpoint / "file").write_bytes(b"x" * 4096)
    error, taken = seconds(lambda: daemon.mount(sick, "b"))
    assert taken < 10 and error is None
    disk.thaw()
    daemon.unmount(sick, "a")
    assert os.path.ismount(mountpoint)


def test_calls_are_answered_while_the_disk_of_the_state_hangs(
        simulator, disk, start, new_volume):
    daemon = start(DETACH_AFTER="1h", STATE_PATH=str(disk.folder / "state"))
    first, second = new_volume(content="xfs"), new_volume(content="xfs")
    daemon.create(first)
    disk.freeze()
    try:
        error, taken = seconds(lambda: daemon.create(second))
        assert taken < CREATE + 2
        assert "the state is not saved" in error and "volumes.json" in error
        health = daemon.health()
        assert health["status"] == "degraded" and "the state folder's disk" in health["reason"]
    finally:
        disk.thaw()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    daemon.create(second)
    daemon.mount(second)
    daemon.unmount(second)
    daemon.__exit__()


def programs(daemon):
    """The programs that the daemon's children run."""
    folder = pathlib.Path(f"/proc/{daemon.process.pid}/task")
    names = []
    for thread in folder.iterdir():
        with contextlib.suppress(OSError):
            for child in (thread / "children").read_text().split():
                names.append(pathlib.Path(f"/proc/{child}/comm").read_text().strip())
    return names
