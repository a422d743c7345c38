"""Tests every fault that can be injected."""

import concurrent.futures
import os

import pytest
from botocore.exceptions import (ConnectionClosedError, EndpointConnectionError,
                                 IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
from botocore.parsers import ResponseParserError
from conftest import FREE, HERE, SMALL, attach
from simulator import ControlError, volume
from test_api import refusal

ATTACH = {"VolumeId": FREE, "InstanceId": HERE, "Device": "/dev/sdf"}
BROKEN = (ConnectionClosedError, EndpointConnectionError, IncompleteReadError,
          ResponseParserError, ResponseStreamingError)


@pytest.mark.parametrize("fields, expected", [
    ({"code": "UnauthorizedOperation", "message": "No."}, ("UnauthorizedOperation", 403, "No.")),
    ({"code": "RequestLimitExceeded"}, ("RequestLimitExceeded", 503, None)),
    ({}, ("InternalError", 500, None)),
    ({"code": "Odd", "status": 418}, ("Odd", 418, None)),
])
def test_an_error_is_answered_once_and_nothing_is_done(simulator, ec2, fields, expected):
    simulator.fault("AttachVolume", "error", **fields)
    code, status, message = refusal(ec2.attach_volume, **ATTACH)
    assert (code, status) == expected[:2]
    assert expected[2] in (None, message)
    assert simulator.volume(FREE)["state"] == "available"
    ec2.attach_volume(**ATTACH)


@pytest.mark.parametrize("kind, applied", [
    ("lostBefore", False), ("reset", False), ("lostAfter", True), ("truncated", True)])
def test_an_answer_can_be_lost_before_or_after_the_call_is_applied(simulator, kind, applied):
    simulator.fault("AttachVolume", kind)
    with pytest.raises(BROKEN):
        simulator.ec2().attach_volume(**ATTACH)
    assert (simulator.volume(FREE)["state"] == "in-use") == applied
    assert simulator.counters()["faults"] == 1


def test_an_answer_that_does_not_come_times_out(simulator):
    simulator.fault("DescribeVolumes", "hang")
    with pytest.raises(ReadTimeoutError):
        simulator.ec2(read_timeout=1).describe_volumes()


def test_a_slow_answer_is_whole(simulator, ec2):
    begin = simulator.state()["ns"]
    simulator.fault("DescribeVolumes", "slow", milliseconds=400)
    assert ec2.describe_volumes()["Volumes"][0]["VolumeId"] == FREE
    assert simulator.state()["ns"] - begin >= 400_000_000


def test_a_call_can_be_late_and_is_applied_then(simulator, ec2):
    simulator.fault("AttachVolume", "late", milliseconds=400)
    begin = simulator.state()["ns"]
    since = simulator.events()[-1]["sequence"]
    ec2.attach_volume(**ATTACH)
    [accepted] = [e for e in simulator.events(since) if e["event"] == "attach-accepted"]
    assert accepted["ns"] - begin >= 400_000_000


def test_a_call_can_be_held_until_the_faults_are_removed(simulator, ec2):
    simulator.fault("CreateTags", "held")
    since = simulator.events()[-1]["sequence"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        call = pool.submit(ec2.create_tags, Resources=[FREE], Tags=[{"Key": "a", "Value": "b"}])
        simulator.wait_until(lambda s: "fault" in [e["event"] for e in s.events(since)])
        assert simulator.volume(FREE)["tags"] == {}
        assert not call.done()
        simulator.clear_faults()
        call.result()
    assert simulator.volume(FREE)["tags"] == {"a": "b"}


def test_an_accepted_attachment_may_end_by_itself(simulator, ec2):
    simulator.fault("Device", "attachmentEnds", milliseconds=200)
    since = simulator.events()[-1]["sequence"]
    assert ec2.attach_volume(**ATTACH)["State"] == "attaching"
    assert simulator.volume(FREE)["state"] == "in-use"
    simulator.wait_for_volume(FREE, "available")
    events = {e["event"]: e["ns"] for e in simulator.events(since)}
    assert events["attachment-failed"] - events["attach-accepted"] >= 200_000_000
    assert "device-created" not in events
    attach(simulator, FREE, HERE)


def test_botocore_retries_over_a_share_of_faults(simulator):
    simulator.fault("*", "error", probability=0.5, code="RequestLimitExceeded")
    ec2 = simulator.ec2(attempts=3)
    for _ in range(4):
        assert ec2.describe_volumes()["Volumes"]
    # Every second one of seven calls: all but the first describe_volumes needed a second attempt.
    assert simulator.counters()["errors"] == {"RequestLimitExceeded": 3}
    simulator.clear_faults()
    simulator.reset_counters()
    ec2.describe_volumes()
    ec2.describe_volumes()
    assert simulator.counters()["errors"] == {}


@pytest.mark.parametrize("stuck, state", [(True, "attaching"), (False, "attached")])
def test_a_device_may_never_come(simulator, ec2, stuck, state):
    simulator.fault("Device", "deviceNever", stuck=stuck)
    ec2.attach_volume(**ATTACH)
    # Another device of the same instance appears after the time at which it would have.
    simulator.create_volume("vol-0aaaaaaaaaaaaaaa2", sizeMiB=SMALL)
    attach(simulator, "vol-0aaaaaaaaaaaaaaa2", HERE, "/dev/sdg")
    [attachment] = simulator.volume(FREE)["attachments"]
    assert (attachment["node"], attachment["state"]) == (None, state)
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")


def test_a_device_may_come_late(simulator, ec2):
    simulator.fault("Device", "deviceLate", milliseconds=300, volume=FREE)
    since = simulator.events()[-1]["sequence"]
    attach(simulator, FREE, HERE)
    events = {e["event"]: e["ns"] for e in simulator.events(since)}
    assert events["device-created"] - events["attach-accepted"] >= 300_000_000


def test_a_device_may_come_under_another_number(simulator):
    simulator.fault("Device", "deviceNumber", number=7)
    assert attach(simulator, FREE, HERE).endswith("/nvme7n1")


def test_a_device_may_have_a_wrong_serial_number(simulator):
    simulator.fault("Device", "deviceSerial", serial="vol0ddddddddddddddd1")
    attach(simulator, FREE, HERE)
    path = simulator.instance(HERE)["sysPath"] + "/class/block/nvme1n1/device/serial"
    assert open(path).read().strip() == "vol0ddddddddddddddd1"


def test_faults_and_buckets_can_stand_in_the_configuration(start):
    simulator = start(
        faults=[{"action": "DescribeVolumes", "kind": "error", "code": "Unavailable"}],
        buckets={"AttachVolume": {"burst": 0, "perSecond": 0}}, latency={"api": 1})
    ec2 = simulator.ec2()
    assert refusal(ec2.describe_volumes)[:2] == ("Unavailable", 503)
    assert refusal(ec2.attach_volume, **ATTACH)[0] == "RequestLimitExceeded"


@pytest.mark.parametrize("method, path, body", [
    ("POST", "/faults", {"action": "AttachVolume", "kind": "nonsense"}),
    ("POST", "/faults", {"action": "AttachVolume", "kind": "deviceNever"}),
    ("POST", "/faults", {"action": "AttachVolume", "kind": "reset", "often": 1}),
    ("POST", "/latency", {"api": -1}), ("POST", "/buckets", {"AttachVolume": 3}),
    ("POST", "/volumes", {"id": "nonsense"}), ("POST", "/volumes", volume(FREE)),
    ("POST", "/instances", {"id": HERE, "state": "asleep"}), ("GET", "/nonsense", None),
])
def test_a_wrong_control_call_is_refused_with_a_reason(simulator, method, path, body):
    before = simulator.state()["volumes"]
    with pytest.raises(ControlError):
        simulator.control(method, path, body)
    assert simulator.state()["volumes"] == before


def test_an_instance_can_be_added_later(simulator):
    added = "i-0bbbbbbbbbbbbbbb1"
    described = simulator.control("POST", "/instances", {"id": added})
    assert described["imdsPort"] > 0
    assert os.path.isdir(described["devPath"])
    attach(simulator, FREE, added)
