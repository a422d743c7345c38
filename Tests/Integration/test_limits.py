"""What EC2 limits: the rate of calls."""

import os

import pytest

from conftest import HERE
from daemon import answer_of
from simulator import Simulator, instance


@pytest.fixture(scope="module")
def simulator():
    with Simulator([instance(HERE, attachmentLimit=64)],
                   latency=dict(api=1, device=30, attached=40, detach=30)) as running:
        yield running


def at_once(daemon, name, volumes, **members):
    """The answers to a call about each volume, all on their way at the same time."""
    calls = [daemon.start_call("VolumeDriver." + name, Name=v, **members) for v in volumes]
    return [answer_of(call) for call in calls]


def test_28_volumes_at_once_share_lookups_and_are_not_throttled(simulator, daemon, new_volume):
    volumes = [new_volume(content="xfs") for _ in range(28)]
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    simulator.reset_counters()
    simulator.latency(api=500)
    try:
        at_once(daemon, "Create", volumes)
    finally:
        simulator.latency(api=1)
    assert simulator.calls("DescribeVolumes") <= 4
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
