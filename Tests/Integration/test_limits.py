"""Tests EC2's limits: the number of volumes of an instance, and the rate of calls."""

import os
import time

import pytest

from conftest import HERE
from daemon import PluginError, answer_of
from simulator import Simulator, instance

# Two volumes in addition to the root volume; one fewer for each network interface after the first.
SMALL = "i-0ddddddddddddddd4"
# An instance type whose limit EC2 enforces but does not report.
UNTOLD = "i-0eeeeeeeeeeeeeee5"


@pytest.fixture(scope="module")
def simulator():
    instances = [
        instance(HERE, attachmentLimit=64),
        instance(SMALL, type="m5d.large", attachmentLimit=3, instanceStoreDisks=1),
        instance(UNTOLD, type="m4.large", attachmentLimit=1, attachmentLimitType="none"),
    ]
    with Simulator(instances,
                   latency=dict(api=1, device=30, attached=40, detach=30)) as running:
        yield running


@pytest.fixture
def small(start):
    """Starts a daemon on the small instance, which knows its limit."""
    def start_small(**settings):
        daemon = start(SMALL, DETACH_AFTER="1h", **settings)
        return daemon.wait_until(lambda d: "the attachment limit of this instance" in d.log() and d)
    return start_small


def created(daemon, new_volume, count):
    volumes = [new_volume(content="xfs") for _ in range(count)]
    for volume in volumes:
        daemon.create(volume)
    return volumes


def at_once(daemon, name, volumes, **members):
    """The responses to one call per volume, all made at the same time."""
    calls = [daemon.start_call("VolumeDriver." + name, Name=v, **members) for v in volumes]
    return [answer_of(call) for call in calls]


# The volumes of an instance


def test_at_its_limit_an_instance_is_not_asked_to_take_more(simulator, small, new_volume):
    daemon = small()
    volumes = created(daemon, new_volume, 3)
    simulator.reset_counters()
    for volume in volumes[:2]:
        daemon.mount(volume)
    assert simulator.calls("DescribeInstances") == 0
    begin = time.monotonic()
    with pytest.raises(PluginError) as refusal:
        daemon.mount(volumes[2])
    assert time.monotonic() - begin < 10
    text = str(refusal.value)
    assert f"cannot attach {volumes[2]} to {SMALL}" in text
    assert "type m5d.large have 3 volumes, one less for each network interface" in text
    assert "it has 3 volumes, 2 of them the plugin's, and 1 network interface;" in text
    assert "place the task on another instance" in text
    assert simulator.calls("AttachVolume") == 2
    assert simulator.calls("DescribeInstances") == 1
    daemon.unmount(volumes[0])
    assert os.path.ismount(daemon.mount(volumes[2]))


def test_a_lingering_volume_makes_place_for_another(simulator, small, new_volume):
    daemon = small()
    volumes = created(daemon, new_volume, 3)
    for volume in volumes[:2]:
        daemon.mount(volume)
    daemon.unmount(volumes[0])
    simulator.reset_counters()
    assert os.path.ismount(daemon.mount(volumes[2]))
    assert simulator.volume(volumes[0])["state"] == "available"
    assert simulator.volume(volumes[0])["tags"] == {}
    assert simulator.counters()["errors"] == {}


def test_a_network_interface_that_came_and_went_does_not_block_for_ever(
        simulator, small, new_volume):
    simulator.control("POST", "/instances", {"id": SMALL, "networkInterfaces": 2})
    try:
        daemon = small()
        volumes = created(daemon, new_volume, 2)
        daemon.mount(volumes[0])
        with pytest.raises(PluginError, match="2 network interfaces"):
            daemon.mount(volumes[1])
    finally:
        simulator.control("POST", "/instances", {"id": SMALL, "networkInterfaces": 1})
    assert os.path.ismount(daemon.mount(volumes[1]))


def test_without_the_permission_ec2_alone_refuses(simulator, start, new_volume):
    simulator.fault("DescribeInstanceTypes", "error", code="UnauthorizedOperation", status=403)
    daemon = start(SMALL)
    daemon.wait_until(lambda d: "allow=ec2:DescribeInstanceTypes" in d.log())
    volumes = created(daemon, new_volume, 3)
    for volume in volumes[:2]:
        daemon.mount(volume)
    with pytest.raises(PluginError, match="AttachmentLimitExceeded"):
        daemon.mount(volumes[2])
    assert daemon.health()["status"] == "ok"


def test_a_limit_that_is_not_told_refuses_nothing(simulator, start, new_volume):
    daemon = start(UNTOLD)
    daemon.wait_until(lambda d: "volumes=\"not told\"" in d.log())
    [volume] = created(daemon, new_volume, 1)
    with pytest.raises(PluginError, match="AttachmentLimitExceeded"):
        daemon.mount(volume)


# The rate of calls


def test_28_volumes_at_once_share_lookups_and_are_not_throttled(simulator, daemon, new_volume):
    volumes = [new_volume(content="xfs") for _ in range(28)]
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    simulator.reset_counters()
    simulator.latency(api=500)
    try:
        at_once(daemon, "Create", volumes)
    finally:
        simulator.latency(api=1)
    assert simulator.calls("DescribeVolumes") <= 10
    mounts = at_once(daemon, "Mount", volumes, ID="x")
    assert all(os.path.ismount(mount["Mountpoint"]) for mount in mounts)
    assert simulator.counters()["errors"] == {}
    assert "waiting" not in daemon.log()


def test_mounts_of_a_throttled_account_succeed_as_its_budget_allows(
        simulator, daemon, new_volume):
    volumes = [new_volume(content="xfs") for _ in range(6)]
    for volume in volumes:
        daemon.create(volume)
    simulator.reset_counters()
    simulator.control("POST", "/buckets", {"AttachVolume": {"burst": 2, "perSecond": 2}})
    try:
        mounts = at_once(daemon, "Mount", volumes, ID="x")
    finally:
        simulator.control("POST", "/buckets", {"AttachVolume": {"burst": 50, "perSecond": 5}})
    assert all(os.path.ismount(mount["Mountpoint"]) for mount in mounts)
    assert simulator.counters()["errors"]["RequestLimitExceeded"] > 0
    assert "EC2 limits the rate of requests: waiting" in daemon.log()
