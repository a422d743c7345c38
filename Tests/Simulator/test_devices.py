"""Tests that devices appear and disappear as on EC2, and that nothing is left behind."""

import errno
import os
import signal
import stat
import subprocess
import time

import pytest
from conftest import FREE, HERE, SMALL, THERE, XEN, attach, await_no_loops, loops
from simulator import Simulator, instance, volume

# The errors of a file system whose device is dead; ext4 returns ENOMEM for a missing block.
DEAD = (errno.EIO, errno.EROFS, errno.ENOMEM)
SERIAL = FREE.replace("-", "")


def read(*parts):
    with open(os.path.join(*parts)) as file:
        return file.read().strip()


def number(path):
    device = os.stat(path).st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


def test_a_nitro_device_has_node_link_and_sysfs_entry(simulator):
    node = attach(simulator, FREE, HERE)
    described = simulator.instance(HERE)
    assert node == described["devPath"] + "/nvme1n1"
    assert stat.S_ISBLK(os.stat(node).st_mode)
    link = described["devPath"] + "/disk/by-id/nvme-Amazon_Elastic_Block_Store_" + SERIAL
    assert os.path.realpath(link) == os.path.realpath(node)
    entry = described["sysPath"] + "/class/block/nvme1n1"
    assert read(entry, "dev") == number(node)
    assert int(read(entry, "size")) * 512 == SMALL << 20
    assert read(entry, "device/serial") == SERIAL
    assert read(entry, "device/model") == "Amazon Elastic Block Store"


def test_a_xen_device_has_the_assigned_letter(simulator):
    node = attach(simulator, FREE, XEN)
    described = simulator.instance(XEN)
    assert node == described["devPath"] + "/xvdf"
    assert read(described["sysPath"], "class/block/xvdf/dev") == number(node)
    assert not os.path.exists(described["devPath"] + "/disk")


def test_the_sysfs_entry_is_complete_when_the_node_appears(simulator):
    described = simulator.instance(HERE)
    entry = described["sysPath"] + "/class/block/nvme1n1"
    simulator.latency(device=50)
    simulator.ec2().attach_volume(VolumeId=FREE, InstanceId=HERE, Device="/dev/sdf")
    node = described["devPath"] + "/nvme1n1"
    while not os.path.lexists(node):
        pass
    assert read(entry, "dev") == number(node)
    assert read(entry, "device/serial") == SERIAL


def test_a_device_goes_with_the_detach(simulator):
    node = attach(simulator, FREE, HERE)
    described = simulator.instance(HERE)
    simulator.ec2().detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    assert not os.path.exists(node)
    assert os.listdir(described["devPath"] + "/disk/by-id") == []
    assert os.listdir(described["sysPath"] + "/class/block") == []
    await_no_loops(simulator.directory)


def test_devices_take_the_lowest_free_number_whatever_their_name(simulator):
    others = [f"vol-0bbbbbbbbbbbbbbb{n}" for n in range(2)]
    for id in others:
        simulator.create_volume(id, sizeMiB=SMALL)
    assert attach(simulator, FREE, HERE, "/dev/sdp").endswith("/nvme1n1")
    assert attach(simulator, others[0], HERE, "/dev/sdf").endswith("/nvme2n1")
    simulator.ec2().detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    assert attach(simulator, others[1], HERE, "/dev/sdg").endswith("/nvme1n1")


def test_eight_devices_appear_at_once(simulator):
    ids = [f"vol-0cccccccccccccc{n:02}" for n in range(8)]
    for id in ids:
        simulator.create_volume(id, sizeMiB=SMALL)
    ec2 = simulator.ec2()
    for id, letter in zip(ids, "fghijklm"):
        ec2.attach_volume(VolumeId=id, InstanceId=HERE, Device=f"/dev/sd{letter}")
    nodes = [simulator.wait_until(lambda s: s.volume(id)["attachments"][0]["node"]) for id in ids]
    assert len({number(node) for node in nodes}) == 8
    for id, node in zip(ids, nodes):
        name = os.path.basename(node)
        serial = read(simulator.instance(HERE)["sysPath"], "class/block", name, "device/serial")
        assert serial == id.replace("-", "")


def test_data_outlives_a_move_to_another_instance(start, mounted):
    simulator = start(volumes=[volume(FREE, content="xfs")])
    place = mounted(attach(simulator, FREE, HERE))
    (place / "greeting").write_text("hello")
    subprocess.run(["umount", place], check=True)
    simulator.ec2().detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    place = mounted(attach(simulator, FREE, THERE))
    assert (place / "greeting").read_text() == "hello"
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("content, expected", [
    ("blank", None), ("xfs", "TYPE=xfs"), ("ext4", "TYPE=ext4"), ("partitioned", "PTTYPE=dos"),
    ("data", None), ("data-at-end", None),
])
def test_a_volume_holds_what_was_asked_for(start, content, expected):
    simulator = start(volumes=[volume(FREE, content=content)])
    node = attach(simulator, FREE, HERE)
    found = subprocess.run(["blkid", "-p", "-o", "export", node], capture_output=True, text=True)
    if expected:
        assert expected in found.stdout.splitlines()
    else:
        assert found.returncode == 2
    with open(node, "rb") as device:
        first = device.read(1 << 20)
        device.seek(-(1 << 20), os.SEEK_END)
        last = device.read()
    assert any(first) == (content not in ("blank", "data-at-end"))
    assert any(last) == (content == "data-at-end")


def test_xen_holds_the_detachment_of_a_mounted_volume_back_until_it_is_unmounted(start, mounted):
    simulator = start(volumes=[volume(FREE, content="ext4")])
    node = attach(simulator, FREE, XEN)
    place = mounted(node)
    ec2 = simulator.ec2()
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_until(lambda s: s.volume(FREE)["attachments"][0]["state"] == "busy")
    [described] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"]
    assert described["State"] == "in-use"
    assert described["Attachments"][0]["State"] == "busy"
    assert os.path.exists(node)
    (place / "file").write_text("still works")
    subprocess.run(["umount", place], check=True)
    simulator.wait_for_volume(FREE, "available")
    assert not os.path.exists(node)


def test_an_instance_can_be_told_to_hold_detachments_back(start, mounted):
    simulator = start(instances=[instance(HERE, holdsDetachBack=True)],
                      volumes=[volume(FREE, content="ext4")])
    place = mounted(attach(simulator, FREE, HERE))
    simulator.ec2().detach_volume(VolumeId=FREE)
    simulator.wait_until(lambda s: s.volume(FREE)["attachments"][0]["state"] == "busy")
    subprocess.run(["umount", place], check=True)
    simulator.wait_for_volume(FREE, "available")


def write_much(place):
    for n in range(64):
        with open(place / f"more{n}", "w") as file:
            file.write("x" * 65536)
            file.flush()
            os.fsync(file.fileno())


@pytest.mark.parametrize("content", ["xfs", "ext4"])
def test_nitro_takes_a_mounted_device_away(start, mounted, content):
    simulator = start(volumes=[volume(FREE, content=content)])
    node = attach(simulator, FREE, HERE)
    place = mounted(node)
    (place / "kept").write_text("synced")
    subprocess.run(["sync", "-f", place], check=True)
    ec2 = simulator.ec2()
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    described = simulator.instance(HERE)
    assert not os.path.exists(node)
    assert os.listdir(described["sysPath"] + "/class/block") == []
    with pytest.raises(OSError) as caught:
        write_much(place)
    assert caught.value.errno in DEAD
    # Another instance has it now, and what was synced.
    nouuid = ["-o", "nouuid"] if content == "xfs" else []
    other = mounted(attach(simulator, FREE, THERE), *nouuid)
    assert (other / "kept").read_text() == "synced"
    write_much(other)
    # What is written to the dead device does not reach the volume.
    subprocess.run(["umount", place], check=True)
    subprocess.run(["umount", other], check=True)
    check = {"xfs": ["xfs_repair", "-n"], "ext4": ["e2fsck", "-fn"]}[content]
    there = simulator.volume(FREE)["attachments"][0]["node"]
    subprocess.run([*check, there], check=True, capture_output=True)
    simulator.wait_until(lambda s: len(loops(s.directory)) == 1, what="the end of the dead device")


def test_a_mounted_partition_goes_with_its_device(start, mounted):
    simulator = start(volumes=[volume(FREE, content="partitioned")])
    partition = attach(simulator, FREE, HERE) + "p1"
    subprocess.run(["mkfs.ext4", "-q", partition], check=True)
    place = mounted(partition)
    with open(partition, "r+b", buffering=0) as device:
        simulator.ec2().detach_volume(VolumeId=FREE)
        simulator.wait_for_volume(FREE, "available")
        assert not os.path.exists(partition)
        with pytest.raises(OSError) as caught:
            write_much(place)
        assert caught.value.errno in DEAD
        with pytest.raises(OSError):
            os.pwrite(device.fileno(), bytes(4096), 64 << 20)


@pytest.mark.parametrize("stays", [False, True])
def test_a_volume_that_comes_back_beside_its_dead_device_is_the_next_namespace(
        start, mounted, stays):
    simulator = start(volumes=[volume(FREE, content="xfs")])
    if stays:
        simulator.fault("Device", "deviceStays")
    dead = attach(simulator, FREE, HERE)
    place = mounted(dead)
    described = simulator.instance(HERE)
    ec2 = simulator.ec2()
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    entry = described["sysPath"] + "/class/block/nvme1n1"
    assert os.path.exists(dead) == os.path.exists(entry) == stays
    if stays:
        with pytest.raises(OSError, match="Input/output error"), open(dead, "rb") as device:
            device.read()
        assert read(entry, "device/serial") == SERIAL
        assert (read(entry, "size"), read(entry, "device/state")) == ("0", "dead")
    node = attach(simulator, FREE, HERE)
    assert os.path.basename(node) == "nvme1n2"
    assert read(described["sysPath"], "class/block/nvme1n2/device/serial") == SERIAL
    assert os.path.exists(dead) == stays
    # A volume that appears meanwhile has its own controller.
    simulator.create_volume("vol-0bbbbbbbbbbbbbbb1", sizeMiB=SMALL)
    assert attach(simulator, "vol-0bbbbbbbbbbbbbbb1", HERE, "/dev/sdg").endswith("/nvme2n1")
    alive = mounted(node, "-o", "nouuid")
    write_much(alive)
    subprocess.run(["umount", alive], check=True)
    subprocess.run(["umount", place], check=True)
    simulator.wait_until(lambda s: not os.path.exists(dead), what="the end of the dead device")
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    simulator.wait_until(lambda s: len(loops(s.directory)) == 1, what="the end of its loop device")
    assert attach(simulator, FREE, HERE).endswith("/nvme1n1")


def test_a_forced_detach_tears_a_mounted_device_away(start, mounted):
    simulator = start(volumes=[volume(FREE, content="ext4")])
    place = mounted(attach(simulator, FREE, HERE))
    (place / "file").write_text("will be lost")
    simulator.ec2().detach_volume(VolumeId=FREE, Force=True)
    simulator.wait_for_volume(FREE, "available")
    with pytest.raises(OSError) as caught:
        write_much(place)
    assert caught.value.errno in DEAD
    subprocess.run(["umount", place], check=True)
    await_no_loops(simulator.directory)


def test_a_volume_that_has_grown_is_larger_for_its_instance(simulator):
    node = attach(simulator, FREE, HERE)
    simulator.ec2().modify_volume(VolumeId=FREE, Size=2)
    size = subprocess.run(["blockdev", "--getsize64", node], check=True, capture_output=True)
    assert int(size.stdout) == 2 << 30
    assert int(read(simulator.instance(HERE)["sysPath"], "class/block/nvme1n1/size")) * 512 == 2 << 30


def test_events_tell_a_timeline(simulator):
    since = simulator.events()[-1]["sequence"]
    simulator.latency(device=100, attached=50)
    attach(simulator, FREE, HERE)
    accepted, created = simulator.events(since)
    assert [accepted["event"], created["event"]] == ["attach-accepted", "device-created"]
    assert accepted["volume"] == FREE and accepted["instance"] == HERE
    assert created["ns"] - accepted["ns"] >= 100_000_000
    assert created["ns"] < time.monotonic_ns()


# What is left behind


def test_a_killed_simulator_is_cleaned_up(start, tmp_path):
    simulator = Simulator([instance(HERE)], [volume(FREE, sizeMiB=SMALL)], tmp_path / "killed")
    simulator.start()
    node = attach(simulator, FREE, HERE)
    simulator.kill()
    assert os.path.lexists(node)
    simulator.clean()
    assert not os.path.exists(simulator.configuration["instances"][0]["devPath"])
    assert not os.path.exists(simulator.configuration["instances"][0]["sysPath"])
    await_no_loops(simulator.directory)


def test_cleaning_leaves_alone_what_another_has_put_there(tmp_path):
    simulator = Simulator([instance(HERE)], [volume(FREE, sizeMiB=SMALL)], tmp_path / "killed")
    simulator.start()
    node = attach(simulator, FREE, HERE)
    simulator.kill()
    os.unlink(node)
    open(node, "w").close()
    simulator.clean()
    assert os.path.isfile(node)


def test_the_start_after_a_kill_begins_clean(start):
    simulator = start()
    attach(simulator, FREE, HERE)
    simulator.kill()
    simulator.start()
    assert attach(simulator, FREE, HERE).endswith("/nvme1n1")


def test_a_start_that_fails_half_way_leaves_nothing(tmp_path):
    simulator = Simulator(
        [instance(HERE)],
        [volume(FREE, sizeMiB=SMALL, attachedTo={"instance": HERE, "device": "/dev/sdf"}),
         volume("vol-0aaaaaaaaaaaaaaa2", sizeMiB=SMALL,
                attachedTo={"instance": HERE, "device": "/dev/sdf"})],
        tmp_path / "failing")
    with pytest.raises(RuntimeError, match="Attachment point /dev/sdf is already in use"):
        simulator.start()
    await_no_loops(simulator.directory)
    assert not os.path.exists(simulator.configuration["instances"][0]["devPath"])


def test_an_unknown_member_of_the_configuration_is_named(tmp_path):
    simulator = Simulator([instance(HERE, colour="red")], [], tmp_path / "wrong")
    with pytest.raises(RuntimeError, match=r"instances\[0\]: unknown member colour"):
        simulator.start()


def test_a_second_simulator_of_one_state_directory_is_refused(simulator):
    second = Simulator([], [], simulator.directory)
    second.configuration_file = simulator.directory / "second.json"
    with pytest.raises(RuntimeError, match="another simulator uses"):
        second.start()
    assert simulator.state()["region"]


def test_an_interrupt_ends_it_as_a_termination_does(simulator):
    attach(simulator, FREE, HERE)
    simulator.process.send_signal(signal.SIGINT)
    assert simulator.process.wait(20) == 0
