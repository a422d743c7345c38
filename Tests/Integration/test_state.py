"""Tests the state that the daemon keeps on disk: whose it is, what it does not understand, what it
cannot save, and what it costs."""

import contextlib
import json
import os
import subprocess

import pytest

from conftest import HERE, THERE
from daemon import PluginError, answer_of


def document(daemon):
    return json.loads((daemon.state_path / "volumes.json").read_text())


def write(daemon, saved):
    daemon.state_path.mkdir(exist_ok=True)
    (daemon.state_path / "volumes.json").write_text(json.dumps(saved))


def names(daemon):
    return [volume["Name"] for volume in daemon.call("VolumeDriver.List")["Volumes"]]


def status(daemon, name):
    return daemon.call("VolumeDriver.Get", Name=name)["Volume"]["Status"]


def record(volume, name=None, **members):
    return {"id": volume, "name": name or volume, "options": {}, "createdAt": 1, "hasLease": False,
            "isFormatting": False, "isRemoved": False, **members}


# Whose it is.

def test_a_state_in_an_image_of_another_instance_leaves_what_is_attached_there_alone(
        simulator, start, new_volume):
    """A root volume is copied while a container on its instance uses a volume."""
    there = start(THERE)
    volume, other = new_volume(content="xfs"), new_volume(content="xfs")
    there.create("data", **{"volume-id": volume})
    there.create(other)
    mountpoint = there.mount("data")
    saved = document(there)
    assert saved["instance"] == THERE
    here = start(HERE)
    here.stop()
    write(here, {**saved, "boot": "another"})
    here.start()
    here.wait_until(lambda d: d.health()["status"] == "ok")
    here.wait_until(lambda d: "belongs to another instance" in d.log())
    assert (here.state_path / f"volumes.json.{THERE}").exists()
    assert sorted(names(here)) == sorted(["data", other])
    assert status(here, "data")["mounts"] == "0"
    # Longer than the linger and the removal of the lease.
    here.mount(other)
    here.unmount(other)
    simulator.wait_for_volume(other, "available")
    described = simulator.volume(volume)
    assert [a["instance"] for a in described["attachments"]] == [THERE]
    assert os.path.ismount(mountpoint)
    assert "polarity-ecs-ebs-plugin:mounted-on" in json.dumps(described)
    here.wait_until(lambda d: document(d)["instance"] == HERE)


@pytest.mark.parametrize("instance, boot", [(THERE, "another"), (THERE, None), (HERE, "another")])
def test_63_names_that_only_records_claim_keep_no_volume_out(
        simulator, start, new_volume, instance, boot):
    """As in an image of a busy instance, without the permission to read the limit."""
    daemon = start(DETACH_AFTER="never")
    daemon.create(new_volume())
    daemon.wait_until(lambda d: "instance" in document(d))
    daemon.stop()
    saved = document(daemon)
    letters = [f"/dev/sd{c}" for c in "fghijklmnop"] + [
        f"/dev/xvd{b}{c}" for b in "bc" for c in "abcdefghijklmnopqrstuvwxyz"]
    saved["volumes"] = [
        record(f"vol-0bad{number:013x}", deviceName=name, hasLease=True)
        for number, name in enumerate(letters)]
    write(daemon, {**saved, "instance": instance, "boot": boot or saved["boot"]})
    simulator.fault("DescribeInstanceTypes", "error", code="UnauthorizedOperation", status=403,
                    count=1000)
    simulator.fault("DescribeInstances", "error", code="UnauthorizedOperation", status=403,
                    count=1000)
    simulator.reset_counters()
    daemon.start()
    volume = new_volume()
    daemon.create(volume)
    assert os.path.ismount(daemon.mount(volume))
    assert len(names(daemon)) == 64
    calls = simulator.counters()["calls"]
    assert "DetachVolume" not in calls
    # This instance's own leases go, as they would have before it was stopped.
    assert "DeleteTags" not in calls or instance == HERE


# Several names.

def test_a_volume_has_several_names_each_with_its_options(daemon, new_volume):
    volume = new_volume(content="xfs")
    daemon.create("writer", **{"volume-id": volume})
    daemon.create("reader", **{"volume-id": volume, "read-only": "true"})
    daemon.create(volume)
    assert sorted(names(daemon)) == sorted([volume, "writer", "reader"])
    mountpoint = daemon.mount("writer", id="first")
    assert daemon.mount(volume, id="second") == mountpoint
    (mountpoint / "file").write_text("kept")
    with pytest.raises(PluginError, match="mount reader: .* mounted as writer with read-only false"):
        daemon.mount("reader", id="third")
    daemon.kill()
    daemon.start()
    with pytest.raises(PluginError, match="mounted as writer"):
        daemon.mount("reader", id="third")
    daemon.call("VolumeDriver.Remove", Name="reader")
    with pytest.raises(PluginError, match="in use"):
        daemon.call("VolumeDriver.Remove", Name="writer")
    daemon.unmount("writer", id="first")
    assert os.path.ismount(mountpoint)
    daemon.unmount(volume, id="second")
    daemon.create("reader", **{"volume-id": volume, "read-only": "true"})
    mountpoint = daemon.mount("reader", id="third")
    with pytest.raises(OSError):
        (mountpoint / "file").write_text("changed")
    assert (mountpoint / "file").read_text() == "kept"
    for name in ["writer", volume]:
        daemon.call("VolumeDriver.Remove", Name=name)
    daemon.unmount("reader", id="third")
    assert names(daemon) == ["reader"]


# What is not understood.

def test_a_record_of_a_newer_version_is_kept_listed_and_not_used(start, new_volume):
    newer, plain = new_volume(content="xfs"), new_volume(content="xfs")
    daemon = start()
    daemon.create(plain)
    daemon.stop()
    saved = document(daemon)
    strange = record(newer, options={"read-only": "true", "colour": "red"}, weight={"kg": [1, 2.5]})
    saved["volumes"].insert(0, strange)
    write(daemon, saved)
    daemon.start()
    assert sorted(names(daemon)) == sorted([newer, plain])
    assert "colour" in status(daemon, newer)["problem"]
    for call in [lambda: daemon.mount(newer), lambda: daemon.create(newer)]:
        with pytest.raises(PluginError, match="colour.*newer version"):
            call()
    daemon.mount(plain)
    daemon.unmount(plain)
    daemon.stop()
    assert strange in document(daemon)["volumes"]
    daemon.start()
    daemon.call("VolumeDriver.Remove", Name=newer)
    assert names(daemon) == [plain]


# What cannot be saved.

@contextlib.contextmanager
def small_disk(folder, pages):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages * 4}k", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_create_that_has_no_room_on_the_disk_has_not_been(start, new_volume, tmp_path):
    with small_disk(tmp_path / "small", 64) as folder:
        daemon = start(STATE_PATH=str(folder))
        daemon.state_path = folder
        kept, lost = new_volume(content="xfs"), new_volume(content="xfs")
        daemon.create(kept)
        with open(folder / "ballast", "wb", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(b"x" * 4096)
        for change in [lambda: daemon.create(lost), lambda: daemon.create("a", **{"volume-id": kept}),
                       lambda: daemon.call("VolumeDriver.Remove", Name=kept)]:
            with pytest.raises(PluginError, match="ENOSPC.*has free space"):
                change()
            assert names(daemon) == [kept]
        daemon.kill()
        daemon.start()
        assert names(daemon) == [kept]
        (folder / "ballast").unlink()
        daemon.create(lost)
        daemon.kill()
        daemon.start()
        assert sorted(names(daemon)) == sorted([kept, lost])
        daemon.stop()


# Many of them.

def many(count):
    return [record(f"vol-{number:017x}", f"task-{number}-data",
                   options={"volume-id": f"vol-{number:017x}", "fs-type": "xfs"})
            for number in range(0xC0FFEE0000000, 0xC0FFEE0000000 + count)]


def test_100_000_volumes_are_remembered_and_a_create_writes_little(
        simulator, start, new_volume):
    daemon = start()
    daemon.stop()
    write(daemon, {"version": 1, "volumes": many(100_000 - 300)})
    daemon.start()
    assert "known from an earlier run" not in daemon.log()
    assert status(daemon, f"task-{0xC0FFEE0000005}-data")["phase"] == "detached"
    first = new_volume()
    daemon.create(first)
    state = daemon.state_path / "volumes.json"
    daemon.wait_until(lambda d: '"instance"' in state.read_bytes()[:200].decode())
    inode = os.stat(state).st_ino
    volumes = [new_volume() for _ in range(20)]
    calls = [daemon.start_call("VolumeDriver.Create", Name=name, Opts={}) for name in volumes]
    for call in calls:
        answer_of(call)
    daemon.call("VolumeDriver.Remove", Name=volumes[0])
    assert os.stat(state).st_ino == inode
    assert 0 < os.stat(daemon.state_path / "volumes.journal").st_size < 10_000
    daemon.kill()
    # As after a crash in the middle of a write.
    with open(daemon.state_path / "volumes.journal", "ab") as journal:
        journal.write(b'{"id":"vol-0')
    daemon.start()
    assert len(names(daemon)) == 100_000 - 300 + 20
    assert status(daemon, first)["phase"] == "detached"
    with pytest.raises(PluginError, match="not created here"):
        status(daemon, volumes[0])
    daemon.mount(volumes[1])
    daemon.unmount(volumes[1])
    daemon.stop()
    # The next version may be an older one, which knows only one file.
    assert len(document(daemon)["volumes"]) == 100_000 - 300 + 20
    assert os.stat(daemon.state_path / "volumes.journal").st_size == 0
