"""Tests what EC2 does for volumes that are ordered: creation, copies, modifications, snapshots and
the limits of an account, judged by boto3."""

import concurrent.futures
import os
import subprocess
import threading
import time

import pytest
from conftest import FREE, HERE, SMALL, THERE, attach
from simulator import ZONE, instance, volume
from test_api import ABSENT, OTHER, refusal

SNAPSHOT = "snap-0aaaaaaaaaaaaaaa1"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
GIB = 1 << 30
LONG = 600_000  # ms; longer than any test
SOON = 3_000  # ms; longer than a few calls take on a busy machine


def call(ec2, method, parameters, **further):
    """Calls a method of the client with further query parameters: those, or the action, that the
    installed botocore does not know yet."""
    def add(params, **_):
        params["body"].update(further)

    ec2.meta.events.register("before-call.ec2.*", add)
    try:
        return getattr(ec2, method)(**parameters)
    finally:
        ec2.meta.events.unregister("before-call.ec2.*", add)


def copy(ec2, source, **further):
    """CopyVolumes; its response is parsed as that of DescribeVolumes, which has the same form."""
    [made] = call(ec2, "describe_volumes", {}, Action="CopyVolumes", SourceVolumeId=source,
                  **further)["Volumes"]
    return made


def create(ec2, **parameters):
    return ec2.create_volume(**{"AvailabilityZone": ZONE, **parameters})


def tagged(resource, **tags):
    return [{"ResourceType": resource,
             "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def tags_of(described):
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def by_tag(key, value):
    return [{"Name": f"tag:{key}", "Values": [value]}]


def found(ec2, filters):
    return [v["VolumeId"] for v in ec2.describe_volumes(Filters=filters)["Volumes"]]


def describe(ec2, id):
    [described] = ec2.describe_volumes(VolumeIds=[id])["Volumes"]
    return described


# CreateVolume


def test_a_volume_is_created_as_ordered(ec2):
    made = create(ec2, Size=20, VolumeType="gp3", Iops=4000, Throughput=500,
                  TagSpecifications=tagged("volume", team="blue"))
    for described in (made, describe(ec2, made["VolumeId"])):
        assert (described["Size"], described["VolumeType"]) == (20, "gp3")
        assert (described["Iops"], described["Throughput"]) == (4000, 500)
        assert (described["Encrypted"], described["SnapshotId"]) == (False, "")
        assert tags_of(described) == {"team": "blue"}
    assert made["State"] == "creating"


@pytest.mark.parametrize("ordered, iops, throughput", [
    ({"VolumeType": "gp3"}, 3000, 125), ({}, 100, None), ({"Size": 100}, 300, None),
    ({"VolumeType": "io2", "Iops": 1500, "Size": 4}, 1500, None),
    ({"VolumeType": "st1", "Size": 125}, None, None),
])
def test_what_is_not_ordered_has_the_default_of_its_type(ec2, ordered, iops, throughput):
    made = create(ec2, **{"Size": 1, **ordered})
    assert made["VolumeType"] == ordered.get("VolumeType", "gp2")
    assert (made.get("Iops"), made.get("Throughput")) == (iops, throughput)


@pytest.mark.parametrize("ordered, code, message", [
    ({"VolumeType": "gp4"}, "UnknownVolumeType", None),
    ({"VolumeType": "gp2", "Iops": 3000}, "InvalidParameterCombination",
     "The parameter iops is not supported for gp2 volumes."),
    ({"VolumeType": "io1", "Size": 4}, "InvalidParameterCombination",
     "The parameter iops must be specified for io1 volumes."),
    ({"VolumeType": "io2", "Iops": 100, "Throughput": 125, "Size": 4},
     "InvalidParameterCombination", "The parameter throughput is not supported for io2 volumes."),
    ({"VolumeType": "gp3", "Size": 65537}, "InvalidParameterValue", None),
    ({"VolumeType": "gp2", "Size": 16385}, "InvalidParameterValue", None),
    ({"VolumeType": "st1", "Size": 124}, "InvalidParameterValue",
     "Volume of 124GiB is too small for volume type st1; minimum is 125GiB."),
    ({"VolumeType": "standard", "Size": 1025}, "InvalidParameterValue", None),
    ({"VolumeType": "gp3", "Iops": 2999}, "InvalidParameterValue",
     "Volume iops of 2999 is too low; minimum is 3000."),
    ({"VolumeType": "gp3", "Size": 4000, "Iops": 80001}, "InvalidParameterValue",
     "Volume iops of 80001 is too high; maximum is 80000."),
    ({"VolumeType": "gp3", "Size": 20, "Iops": 15000}, "InvalidParameterValue",
     "Iops to volume size ratio of 750.000000 is too high; maximum is 500"),
    ({"VolumeType": "io1", "Size": 4, "Iops": 201}, "InvalidParameterValue", None),
    ({"VolumeType": "io2", "Size": 4, "Iops": 4001}, "InvalidParameterValue", None),
    ({"VolumeType": "gp3", "Throughput": 1000}, "InvalidParameterValue",
     "Throughput (MiBps) to iops ratio of 0.333333 is too high; "
     "maximum is 0.250000 MiBps per iops"),
    ({"VolumeType": "gp3", "Throughput": 2001, "Iops": 10000, "Size": 20},
     "InvalidParameterValue", None),
    ({"VolumeType": "gp3", "MultiAttachEnabled": True}, "InvalidParameterCombination", None),
    ({"KmsKeyId": KEY}, "InvalidParameterDependency", None),
    ({"TagSpecifications": tagged("snapshot", a="b")}, "InvalidParameterValue",
     "'snapshot' is not a valid taggable resource type for this operation."),
    ({"AvailabilityZone": "eu-west-1a"}, "InvalidZone.NotFound", None),
])
def test_an_order_that_no_type_allows_is_refused(simulator, ec2, ordered, code, message):
    refused, status, text = refusal(create, ec2=ec2, **{"Size": 1, **ordered})
    assert (refused, status) == (code, 400)
    assert message in (None, text)
    assert [v["id"] for v in simulator.state()["volumes"]] == [FREE]


def test_a_volume_needs_a_size_or_a_snapshot(ec2):
    code, _, message = refusal(create, ec2=ec2)
    assert code == "MissingParameter"
    assert message == "The request must contain the parameter size/snapshot"


def test_a_gp3_volume_of_any_size_has_the_baseline(ec2):
    assert create(ec2, Size=1, VolumeType="gp3", Iops=3000, Throughput=750)["Iops"] == 3000


def test_an_encrypted_volume_has_the_ordered_key_or_the_default_one(ec2):
    assert create(ec2, Size=1, Encrypted=True, KmsKeyId=KEY)["KmsKeyId"] == KEY
    id = KEY.rpartition("/")[2]
    assert create(ec2, Size=1, Encrypted=True, KmsKeyId=id)["KmsKeyId"] == KEY
    default = create(ec2, Size=1, Encrypted=True)
    assert default["Encrypted"] is True
    # EC2 reports the key, never its alias.
    assert "key/" in default["KmsKeyId"] and "alias" not in default["KmsKeyId"]
    for alias in ("alias/aws/ebs", "arn:aws:kms:eu-central-1:123456789012:alias/aws/ebs"):
        made = create(ec2, Size=1, Encrypted=True, KmsKeyId=alias)
        assert made["KmsKeyId"] == default["KmsKeyId"]
    other = create(ec2, Size=1, Encrypted=True, KmsKeyId="alias/other")
    assert other["KmsKeyId"] != default["KmsKeyId"]


# Client tokens


def test_the_same_token_means_the_same_volume(simulator, ec2):
    order = {"Size": 1, "VolumeType": "gp3", "ClientToken": "t"}
    first = create(ec2, **order)["VolumeId"]
    assert create(ec2, **order)["VolumeId"] == first
    simulator.wait_for_volume(first, "available")
    again = create(ec2, **order)
    assert (again["VolumeId"], again["State"]) == (first, "available")
    attach(simulator, first, HERE)
    assert create(ec2, **order)["VolumeId"] == first
    assert create(ec2, **{**order, "ClientToken": "other"})["VolumeId"] != first
    assert len(simulator.state()["volumes"]) == 3


def test_calls_at_once_with_one_token_create_one_volume(simulator):
    clients = [simulator.ec2() for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(
            lambda ec2: create(ec2, Size=1, ClientToken="t")["VolumeId"], clients))
    assert len(set(ids)) == 1
    assert len(simulator.state()["volumes"]) == 2


@pytest.mark.parametrize("change", [
    {"Size": 2}, {"VolumeType": "gp2"}, {"TagSpecifications": tagged("volume", a="b")}])
def test_a_token_with_other_parameters_is_refused(simulator, ec2, change):
    order = {"Size": 1, "VolumeType": "gp3", "ClientToken": "t"}
    create(ec2, **order)
    code, status, message = refusal(create, ec2=ec2, **{**order, **change})
    assert (code, status) == ("IdempotentParameterMismatch", 400)
    assert message == ("Parameters on this idempotent request are inconsistent with parameters "
                       "used in previous request(s)")
    assert len(simulator.state()["volumes"]) == 2


@pytest.mark.parametrize("change", [0, LONG])
def test_the_token_of_a_deleted_volume_is_refused(simulator, ec2, change):
    made = create(ec2, Size=1, ClientToken="t")["VolumeId"]
    simulator.latency(change=change)
    ec2.delete_volume(VolumeId=made)
    code, status, message = refusal(create, ec2=ec2, Size=1, ClientToken="t")
    assert (code, status) == ("IdempotentParameterMismatch", 400)
    assert message == ("The client token you have provided is associated with a resource that is "
                       "already deleted. Please use a different client token.")
    assert create(ec2, Size=1, ClientToken="u")["VolumeId"] != made


def test_a_rejected_call_does_not_use_its_token_up(simulator, ec2):
    assert refusal(create, ec2=ec2, Size=1, VolumeType="io1", ClientToken="t")[0]
    create(ec2, Size=1, ClientToken="t")


def test_a_lost_answer_is_made_up_for_with_the_token(simulator):
    simulator.fault("CreateVolume", "lostAfter")
    made = create(simulator.ec2(attempts=3), Size=1, ClientToken="t")["VolumeId"]
    assert [v["id"] for v in simulator.state()["volumes"] if v["id"] != FREE] == [made]


# What else happens to a new volume


def test_a_volume_whose_key_is_inaccessible_vanishes(simulator, ec2):
    simulator.fault("Volume", "vanishes")
    simulator.latency(change=SOON)
    made = create(ec2, Size=1, Encrypted=True, KmsKeyId=KEY, ClientToken="t")["VolumeId"]
    assert describe(ec2, made)["State"] == "creating"
    simulator.wait_until(lambda s: len(s.state()["volumes"]) == 1)
    assert refusal(ec2.describe_volumes, VolumeIds=[made])[0] == "InvalidVolume.NotFound"
    assert not simulator.backing(made).exists()
    code, _, message = refusal(
        create, ec2=ec2, Size=1, Encrypted=True, KmsKeyId=KEY, ClientToken="t")
    assert code == "IdempotentParameterMismatch"
    assert "already deleted" in message
    # The fault was for one volume.
    simulator.wait_for_volume(create(ec2, Size=1)["VolumeId"], "available")


def test_the_accounts_storage_and_iops_have_limits(start):
    ec2 = start(volumes=[volume(FREE, sizeMiB=SMALL)],
                quotas={"storageGiB": {"gp3": 1024}, "iops": {"io2": 5000}}).ec2()
    create(ec2, Size=1000, VolumeType="gp3")
    code, status, message = refusal(create, ec2=ec2, Size=24, VolumeType="gp3")
    assert (code, status) == ("VolumeLimitExceeded", 400)
    assert message.startswith("You have exceeded your maximum gp3 storage limit of 1 TiB in this")
    last = create(ec2, Size=23, VolumeType="gp3")["VolumeId"]
    create(ec2, Size=1000, VolumeType="gp2")
    assert refusal(ec2.modify_volume, VolumeId=last, Size=24)[0] == "VolumeLimitExceeded"
    assert refusal(call, ec2=ec2, method="describe_volumes", parameters={}, Action="CopyVolumes",
                   SourceVolumeId=FREE, VolumeType="gp3")[0] == "VolumeLimitExceeded"
    ec2.delete_volume(VolumeId=last)
    create(ec2, Size=23, VolumeType="gp3")
    create(ec2, Size=100, VolumeType="io2", Iops=3000)
    code, _, message = refusal(create, ec2=ec2, Size=100, VolumeType="io2", Iops=2001)
    assert code == "MaxIOPSLimitExceeded"
    assert "5000" in message
    create(ec2, Size=100, VolumeType="io2", Iops=2000)


def test_a_quota_can_change(simulator, ec2):
    simulator.control("POST", "/quotas", {"storageGiB": {"gp2": 0}})
    assert refusal(create, ec2=ec2, Size=1)[0] == "VolumeLimitExceeded"
    simulator.control("POST", "/quotas", {"storageGiB": {}})
    create(ec2, Size=1)


# Filters by tag


def test_pages_of_a_tag_filter_cover_its_volumes_once(ec2):
    made = {create(ec2, Size=1, TagSpecifications=tagged("volume", pool="p"))["VolumeId"]
            for _ in range(7)}
    create(ec2, Size=1, TagSpecifications=tagged("volume", pool="q"))
    pages = list(ec2.get_paginator("describe_volumes").paginate(
        Filters=by_tag("pool", "p"), PaginationConfig={"PageSize": 5}))
    assert [len(page["Volumes"]) for page in pages] == [5, 2]
    assert {v["VolumeId"] for page in pages for v in page["Volumes"]} == made


def test_a_tag_finds_a_new_volume_later_than_its_id(simulator, ec2):
    simulator.latency(tagFilters=LONG)
    made = create(ec2, Size=1, TagSpecifications=tagged("volume", name="n"))["VolumeId"]
    assert tags_of(describe(ec2, made)) == {"name": "n"}
    assert found(ec2, [{"Name": "volume-id", "Values": [made]}]) == [made]
    assert found(ec2, by_tag("name", "n")) == []
    assert found(ec2, [{"Name": "tag-key", "Values": ["name"]}]) == []
    simulator.latency(tagFilters=0)
    assert found(ec2, by_tag("name", "n")) == [made]


def test_a_tag_filter_finds_by_the_earlier_value_of_a_changed_tag(simulator, ec2):
    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "name", "Value": "old"}])
    simulator.latency(tagFilters=LONG)
    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "name", "Value": "new"}])
    assert found(ec2, by_tag("name", "old")) == [FREE]
    assert found(ec2, by_tag("name", "new")) == []
    assert tags_of(describe(ec2, FREE)) == {"name": "new"}


def test_a_tag_filter_finds_a_new_volume_after_its_delay(simulator, ec2):
    simulator.latency(tagFilters=300)
    begin = simulator.state()["ns"]
    made = create(ec2, Size=1, TagSpecifications=tagged("volume", name="n"))["VolumeId"]
    simulator.wait_until(lambda s: found(ec2, by_tag("name", "n")) == [made])
    assert simulator.state()["ns"] - begin >= 300_000_000


# CopyVolumes


def test_a_copy_has_its_sources_content_and_its_own_tags(start, mounted):
    simulator = start(volumes=[volume(FREE, content="xfs", tags={"team": "blue"})])
    ec2 = simulator.ec2()
    place = mounted(attach(simulator, FREE, HERE))
    (place / "greeting").write_text("hello")
    subprocess.run(["sync", "-f", place], check=True)
    made = copy(ec2, FREE, VolumeType="gp3", **{
        "TagSpecification.1.ResourceType": "volume", "TagSpecification.1.Tag.1.Key": "a",
        "TagSpecification.1.Tag.1.Value": "b"})
    assert (made["State"], made["AvailabilityZone"], made["Size"]) == ("creating", ZONE, 1)
    assert (made["VolumeType"], made["Iops"]) == ("gp3", 3000)
    assert tags_of(made) == {"a": "b"}
    (place / "greeting").write_text("later")
    subprocess.run(["umount", place], check=True)
    simulator.wait_for_volume(made["VolumeId"], "available")
    assert simulator.volume(made["VolumeId"])["sourceVolumeId"] == FREE
    node = attach(simulator, made["VolumeId"], THERE)
    assert os.stat(simulator.backing(made["VolumeId"])).st_size == 320 << 20
    other = mounted(node, "-o", "nouuid")
    assert (other / "greeting").read_text() == "hello"
    subprocess.run(["umount", other], check=True)


def test_a_copy_may_be_larger_and_keeps_the_encryption(start):
    simulator = start(volumes=[volume(FREE, sizeMiB=2048, content="data", kmsKeyId=KEY)])
    ec2 = simulator.ec2()
    made = copy(ec2, FREE, Size="3")
    assert (made["Size"], made["VolumeType"]) == (3, "gp2")
    assert (made["Encrypted"], made["KmsKeyId"]) == (True, KEY)
    with open(simulator.backing(made["VolumeId"]), "rb") as file:
        assert any(file.read(1 << 20))
        assert os.fstat(file.fileno()).st_size == 3 * GIB


@pytest.mark.parametrize("source, further, code", [
    (ABSENT, {}, "InvalidVolume.NotFound"), (FREE, {"Size": "1"}, "InvalidParameterValue"),
    (FREE, {"VolumeType": "io1"}, "InvalidParameterCombination"),
])
def test_a_copy_that_cannot_be_is_refused(start, source, further, code):
    ec2 = start(volumes=[volume(FREE, sizeMiB=2048)]).ec2()
    assert refusal(copy, ec2=ec2, source=source, **further)[0] == code


def test_a_copy_has_a_token_of_its_own_action(simulator, ec2):
    made = copy(ec2, FREE, ClientToken="t")["VolumeId"]
    assert copy(ec2, FREE, ClientToken="t")["VolumeId"] == made
    assert refusal(copy, ec2=ec2, source=FREE, ClientToken="t",
                   Size="2")[0] == "IdempotentParameterMismatch"
    assert create(ec2, Size=1, ClientToken="t")["VolumeId"] != made
    ec2.delete_volume(VolumeId=made)
    assert "already deleted" in refusal(copy, ec2=ec2, source=FREE, ClientToken="t")[2]


def test_a_volume_in_creation_is_not_copied(simulator, ec2):
    simulator.latency(change=LONG)
    made = create(ec2, Size=1)["VolumeId"]
    assert refusal(copy, ec2=ec2, source=made)[0] == "IncorrectState"


# DeleteVolume


def test_a_volume_that_is_being_deleted_is_described_until_it_is_gone(simulator, ec2):
    simulator.latency(change=SOON)
    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "name", "Value": "n"}])
    ec2.delete_volume(VolumeId=FREE)
    assert describe(ec2, FREE)["State"] == "deleting"
    assert found(ec2, by_tag("name", "n")) == [FREE]
    assert refusal(ec2.delete_volume, VolumeId=FREE)[0] == "InvalidVolume.NotFound"
    assert refusal(ec2.attach_volume, VolumeId=FREE, InstanceId=HERE,
                   Device="/dev/sdf")[0] == "InvalidVolume.NotFound"
    simulator.wait_until(lambda s: s.state()["volumes"] == [])
    assert found(ec2, by_tag("name", "n")) == []
    assert not simulator.backing(FREE).exists()


def test_a_volume_in_creation_is_not_deleted(simulator, ec2):
    simulator.latency(change=LONG)
    made = create(ec2, Size=1)["VolumeId"]
    assert refusal(ec2.delete_volume, VolumeId=made)[0] == "IncorrectState"


# ModifyVolume


def modification(ec2, id=FREE):
    [described] = ec2.describe_volumes_modifications(VolumeIds=[id])["VolumesModifications"]
    return described


def test_a_modification_goes_through_its_states(start):
    simulator = start(volumes=[volume(FREE, sizeMiB=1024)])
    ec2 = simulator.ec2()
    node = attach(simulator, FREE, HERE)
    simulator.latency(modifying=SOON, optimizing=SOON)
    answer = ec2.modify_volume(VolumeId=FREE, Size=20, Iops=6000, Throughput=250)
    begun = answer["VolumeModification"]
    assert (begun["ModificationState"], begun["Progress"]) == ("modifying", 0)
    assert (begun["OriginalSize"], begun["TargetSize"]) == (1, 20)
    assert (begun["OriginalIops"], begun["TargetIops"]) == (3000, 6000)
    assert (begun["OriginalThroughput"], begun["TargetThroughput"]) == (125, 250)
    assert (begun["OriginalVolumeType"], begun["TargetVolumeType"]) == ("gp3", "gp3")
    assert describe(ec2, FREE)["Size"] == 1
    assert os.stat(simulator.backing(FREE)).st_size == GIB
    seen = []

    def is_completed(_):
        described = modification(ec2)
        seen.append((described["ModificationState"], described["Progress"]))
        return described["ModificationState"] == "completed"

    simulator.wait_until(is_completed, pause=0.2)
    states = list(dict.fromkeys(state for state, _ in seen))
    assert states == ["modifying", "optimizing", "completed"]
    progress = [percent for _, percent in seen]
    assert progress == sorted(progress) and progress[-1] == 100
    assert all(percent < 100 for state, percent in seen if state != "completed")
    ended = modification(ec2)
    assert ended["EndTime"] >= ended["StartTime"]
    described = describe(ec2, FREE)
    assert (described["Size"], described["Iops"], described["Throughput"]) == (20, 6000, 250)
    size = subprocess.run(["blockdev", "--getsize64", node], check=True, capture_output=True)
    assert int(size.stdout) == 20 * GIB


def test_the_device_grows_when_optimizing_begins(simulator, ec2):
    node = attach(simulator, FREE, HERE)
    simulator.latency(modifying=200, optimizing=LONG)
    ec2.modify_volume(VolumeId=FREE, Size=2)

    def size(_):
        found = subprocess.run(["blockdev", "--getsize64", node], check=True, capture_output=True)
        return int(found.stdout) == 2 * GIB

    simulator.wait_until(size, what="the new size")
    assert modification(ec2)["ModificationState"] == "optimizing"
    assert describe(ec2, FREE)["Size"] == 2


@pytest.mark.parametrize("latency", [{"modifying": LONG}, {"optimizing": LONG}])
def test_a_modification_waits_for_the_one_before_it(simulator, ec2, latency):
    simulator.latency(**latency)
    ec2.modify_volume(VolumeId=FREE, Size=2)
    code, status, message = refusal(ec2.modify_volume, VolumeId=FREE, Size=3)
    assert (code, status) == ("IncorrectModificationState", 400)
    state = "MODIFYING" if "modifying" in latency else "OPTIMIZING"
    assert message == f"Volume {FREE} cannot be modified in modification state {state}."


def test_a_volume_that_is_being_modified_is_not_attached(simulator, ec2):
    simulator.latency(modifying=LONG)
    ec2.modify_volume(VolumeId=FREE, Size=2)
    code, _, message = refusal(
        ec2.attach_volume, VolumeId=FREE, InstanceId=HERE, Device="/dev/sdf")
    assert code == "OperationNotPermitted"
    assert message == (
        f"Cannot attach volume {FREE} when it is in modification state: MODIFYING")


def test_a_volume_is_modified_four_times_a_day(ec2):
    for size in (2, 3, 4, 5):
        ec2.modify_volume(VolumeId=FREE, Size=size)
    code, status, message = refusal(ec2.modify_volume, VolumeId=FREE, Size=6)
    assert (code, status) == ("VolumeModificationRateExceeded", 400)
    assert message.startswith("You've reached the maximum modification rate per volume limit.")
    assert describe(ec2, FREE)["Size"] == 5


@pytest.mark.parametrize("change, code", [
    ({"Size": 1}, "InvalidParameterValue"), ({"VolumeType": "st1"}, "InvalidParameterValue"),
    ({"VolumeType": "io1"}, "InvalidParameterValue"),
    ({"VolumeType": "gp2", "Throughput": 200}, "InvalidParameterCombination"),
    ({"VolumeType": "gp2", "Iops": 3000}, "InvalidParameterCombination"),
    ({"Iops": 2000}, "InvalidParameterValue"), ({"Throughput": 800}, "InvalidParameterValue"),
    ({"VolumeId": ABSENT}, "InvalidVolume.NotFound"),
])
def test_a_modification_that_no_type_allows_is_refused(start, change, code):
    ec2 = start(volumes=[volume(FREE, sizeMiB=20 * 1024)]).ec2()
    assert refusal(ec2.modify_volume, **{"VolumeId": FREE, **change})[0] == code
    assert ec2.describe_volumes_modifications()["VolumesModifications"] == []


def test_a_modified_type_has_its_defaults(start):
    ec2 = start(volumes=[volume(FREE, sizeMiB=64 * 1024)]).ec2()
    target = ec2.modify_volume(VolumeId=FREE, VolumeType="io1")["VolumeModification"]
    assert (target["TargetIops"], "TargetThroughput" in target) == (3000, False)
    target = ec2.modify_volume(VolumeId=FREE, VolumeType="gp2")["VolumeModification"]
    assert "TargetIops" not in target
    target = ec2.modify_volume(VolumeId=FREE, VolumeType="gp3")["VolumeModification"]
    assert (target["TargetIops"], target["TargetThroughput"]) == (3000, 125)


def test_a_modification_may_fail(simulator, ec2):
    simulator.fault("Modification", "fails", volume=FREE)
    ec2.modify_volume(VolumeId=FREE, Size=2)
    assert modification(ec2)["ModificationState"] == "failed"
    assert describe(ec2, FREE)["Size"] == 1
    ec2.modify_volume(VolumeId=FREE, Size=2)
    assert describe(ec2, FREE)["Size"] == 2


def test_modifications_are_filtered_and_the_latest_is_described(start):
    simulator = start(volumes=[volume(id, sizeMiB=SMALL) for id in (FREE, OTHER)])
    ec2 = simulator.ec2()
    ec2.modify_volume(VolumeId=FREE, Size=2)
    simulator.latency(optimizing=LONG)
    ec2.modify_volume(VolumeId=FREE, Size=3)
    simulator.latency(optimizing=0)
    ec2.modify_volume(VolumeId=OTHER, VolumeType="gp2")

    def which(name, *values):
        described = ec2.describe_volumes_modifications(Filters=[
            {"Name": name, "Values": list(values)}])["VolumesModifications"]
        return [m["VolumeId"] for m in described]

    assert modification(ec2)["TargetSize"] == 3
    assert which("modification-state", "modifying", "optimizing") == [FREE]
    assert which("modification-state", "completed") == [OTHER]
    assert which("volume-id", OTHER) == [OTHER]
    assert which("target-volume-type", "gp2") == [OTHER]
    assert which("original-size", "2") == [FREE]
    assert refusal(ec2.describe_volumes_modifications, VolumeIds=[ABSENT])[0] == (
        "InvalidVolumeModification.NotFound")


# Snapshots


def snapshot_of(ec2, id):
    [described] = ec2.describe_snapshots(SnapshotIds=[id])["Snapshots"]
    return described


def wait_for_snapshot(simulator, id, state="completed"):
    simulator.wait_until(
        lambda s: [state] == [x["state"] for x in s.state()["snapshots"] if x["id"] == id])


def test_a_snapshot_is_pending_and_then_completed(simulator, ec2):
    simulator.latency(snapshot=SOON)
    made = ec2.create_snapshot(VolumeId=FREE, Description="d",
                               TagSpecifications=tagged("snapshot", name="n"))
    assert (made["State"], made["VolumeId"], made["VolumeSize"]) == ("pending", FREE, 1)
    assert (made["Progress"], made["OwnerId"]) == ("0%", "123456789012")
    assert (made["Description"], made["Encrypted"]) == ("d", False)
    id = made["SnapshotId"]
    assert id.startswith("snap-") and len(id) == 22
    assert refusal(create, ec2=ec2, SnapshotId=id) == (
        "IncorrectState", 400, f"Snapshot '{id}' is not 'completed'.")
    seen = []

    def is_completed(_):
        described = snapshot_of(ec2, id)
        seen.append(int(described["Progress"].removesuffix("%")))
        return described["State"] == "completed"

    simulator.wait_until(is_completed, pause=0.2)
    assert seen == sorted(seen) and seen[-1] == 100
    assert tags_of(snapshot_of(ec2, id)) == {"name": "n"}
    assert abs(time.time() - made["StartTime"].timestamp()) < 60


def test_a_volume_from_a_snapshot_has_the_content_of_its_moment(start, mounted):
    simulator = start(volumes=[volume(FREE, content="ext4", kmsKeyId=KEY)])
    ec2 = simulator.ec2()
    place = mounted(attach(simulator, FREE, HERE))
    (place / "greeting").write_text("hello")
    subprocess.run(["sync", "-f", place], check=True)
    snapshot = ec2.create_snapshot(VolumeId=FREE)["SnapshotId"]
    (place / "greeting").write_text("later")
    subprocess.run(["umount", place], check=True)
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    ec2.delete_volume(VolumeId=FREE)
    made = call(ec2, "create_volume", {"AvailabilityZone": "eu-central-1b", "VolumeType": "gp3",
                                       "SnapshotId": snapshot}, VolumeInitializationRate="200")
    assert (made["SnapshotId"], made["Size"]) == (snapshot, 1)
    assert made["AvailabilityZone"] == "eu-central-1b"
    assert (made["Encrypted"], made["KmsKeyId"]) == (True, KEY)
    assert simulator.volume(made["VolumeId"])["initializationRate"] == 200
    here = create(ec2, SnapshotId=snapshot, Size=2)["VolumeId"]
    assert os.stat(simulator.backing(here)).st_size == 2 * GIB
    other = mounted(attach(simulator, here, THERE))
    assert (other / "greeting").read_text() == "hello"
    subprocess.run(["umount", other], check=True)


@pytest.mark.parametrize("order, code, message", [
    ({"SnapshotId": "snap-0fffffffffffffff1"}, "InvalidSnapshot.NotFound",
     "The snapshot 'snap-0fffffffffffffff1' does not exist."),
    ({"SnapshotId": "nonsense"}, "InvalidParameterValue", None),
    ({"SnapshotId": SNAPSHOT, "Size": 2}, "InvalidParameterValue",
     f"Volume of size 2GB is smaller than snapshot '{SNAPSHOT}', expect size >= 3GB"),
])
def test_a_snapshot_that_cannot_be_used_is_refused(start, order, code, message):
    ec2 = start(snapshots=[{"id": SNAPSHOT, "sizeGiB": 3}]).ec2()
    refused, _, text = refusal(create, ec2=ec2, **order)
    assert refused == code
    assert message in (None, text)
    for parameters in ({"SnapshotId": SNAPSHOT}, {"Size": 3}):
        rate = {"VolumeInitializationRate": "99" if "SnapshotId" in parameters else "200"}
        assert refusal(call, ec2=ec2, method="create_volume",
                       parameters={"AvailabilityZone": ZONE, **parameters},
                       **rate)[0].startswith("InvalidParameter")


def test_snapshots_are_found_by_owner_and_filter(start):
    simulator = start(snapshots=[
        {"id": SNAPSHOT, "sizeGiB": 3, "tags": {"set": "a"}, "ageSeconds": 100},
        {"id": "snap-0aaaaaaaaaaaaaaa2", "tags": {"set": "a"}, "ageSeconds": 50},
        {"id": "snap-0aaaaaaaaaaaaaaa3", "state": "error", "tags": {"set": "b"}}])
    ec2 = simulator.ec2()

    def which(**parameters):
        return [s["SnapshotId"][-1] for s in ec2.describe_snapshots(**parameters)["Snapshots"]]

    assert which() == which(OwnerIds=["self"]) == which(OwnerIds=["123456789012"]) == [*"123"]
    assert which(OwnerIds=["amazon"]) == []
    assert which(OwnerIds=["self"], Filters=by_tag("set", "a")) == [*"12"]
    assert which(Filters=[{"Name": "status", "Values": ["completed"]}]) == [*"12"]
    assert which(Filters=[{"Name": "volume-size", "Values": ["3"]}]) == [*"1"]
    ages = {s["SnapshotId"][-1]: s["StartTime"] for s in ec2.describe_snapshots()["Snapshots"]}
    assert ages["1"] < ages["2"] < ages["3"]
    assert refusal(ec2.describe_snapshots,
                   SnapshotIds=["snap-0fffffffffffffff1"])[0] == "InvalidSnapshot.NotFound"
    for n in range(7):
        simulator.control("POST", "/snapshots", {"id": f"snap-0bbbbbbbbbbbbbbb{n}"})
    pages = list(ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], PaginationConfig={"PageSize": 5}))
    assert [len(page["Snapshots"]) for page in pages] == [5, 5]


def test_a_tag_finds_a_new_snapshot_later_than_its_id(simulator, ec2):
    simulator.latency(tagFilters=LONG)
    made = ec2.create_snapshot(VolumeId=FREE, TagSpecifications=tagged("snapshot", name="n"))
    assert tags_of(snapshot_of(ec2, made["SnapshotId"])) == {"name": "n"}
    assert ec2.describe_snapshots(Filters=by_tag("name", "n"))["Snapshots"] == []
    simulator.latency(tagFilters=0)
    assert len(ec2.describe_snapshots(Filters=by_tag("name", "n"))["Snapshots"]) == 1


def test_the_tags_of_a_snapshot_change(start):
    ec2 = start(snapshots=[{"id": SNAPSHOT}]).ec2()
    ec2.create_tags(Resources=[SNAPSHOT], Tags=[{"Key": "a", "Value": "b"}])
    assert tags_of(snapshot_of(ec2, SNAPSHOT)) == {"a": "b"}
    [row] = ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["snapshot"]}])["Tags"]
    assert row["ResourceId"] == SNAPSHOT
    ec2.delete_tags(Resources=[SNAPSHOT], Tags=[{"Key": "a"}])
    assert tags_of(snapshot_of(ec2, SNAPSHOT)) == {}


def test_a_snapshot_is_deleted_and_its_volumes_stay(start):
    simulator = start(snapshots=[{"id": SNAPSHOT, "sizeMiB": SMALL, "content": "data"}])
    ec2 = simulator.ec2()
    made = create(ec2, SnapshotId=SNAPSHOT)["VolumeId"]
    ec2.delete_snapshot(SnapshotId=SNAPSHOT)
    assert refusal(ec2.delete_snapshot, SnapshotId=SNAPSHOT)[0] == "InvalidSnapshot.NotFound"
    assert not (simulator.directory / "state" / "snapshots" / SNAPSHOT).exists()
    assert describe(ec2, made)["SnapshotId"] == SNAPSHOT
    with open(attach(simulator, made, HERE), "rb") as device:
        assert any(device.read(1 << 20))


def test_a_pending_snapshot_is_deleted_when_it_is_completed(simulator, ec2):
    simulator.latency(snapshot=SOON)
    made = ec2.create_snapshot(VolumeId=FREE)["SnapshotId"]
    ec2.delete_snapshot(SnapshotId=made)
    assert snapshot_of(ec2, made)["State"] == "pending"
    simulator.wait_until(lambda s: s.state()["snapshots"] == [])


def test_a_snapshot_may_fail(simulator, ec2):
    simulator.fault("Snapshot", "fails", volume=FREE)
    made = ec2.create_snapshot(VolumeId=FREE)["SnapshotId"]
    wait_for_snapshot(simulator, made, "error")
    assert snapshot_of(ec2, made)["State"] == "error"
    assert refusal(create, ec2=ec2, SnapshotId=made)[0] == "IncorrectState"
    wait_for_snapshot(simulator, ec2.create_snapshot(VolumeId=FREE)["SnapshotId"])


def test_a_snapshot_is_of_one_moment_though_its_volume_is_written(start):
    size = 64 << 20
    simulator = start(volumes=[volume(FREE, sizeMiB=64)])
    ec2 = simulator.ec2()
    node = attach(simulator, FREE, HERE)
    begun = threading.Event()

    def write():
        with open(node, "r+b", buffering=0) as device:
            os.pwrite(device.fileno(), os.urandom(size), 0)
            for n in range(1, 30):
                # What is written last is never ahead of what is written first.
                for position in (0, size - 4096):
                    os.pwrite(device.fileno(), n.to_bytes(4096, "big"), position)
                    os.fsync(device.fileno())
                begun.set()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        writer = pool.submit(write)
        begun.wait()
        made = ec2.create_snapshot(VolumeId=FREE)["SnapshotId"]
        writer.result()
    with open(simulator.directory / "state" / "snapshots" / made, "rb") as file:
        first = int.from_bytes(file.read(4096), "big")
        file.seek(size - 4096)
        last = int.from_bytes(file.read(), "big")
    assert last <= first <= last + 1
    assert "written during each" not in simulator.output()


# EBS cards


def test_a_volume_is_attached_to_the_card_that_is_asked_for(start):
    simulator = start(instances=[instance(HERE, type="r8gb.48xlarge", ebsCards=2),
                                 instance(THERE)],
                      volumes=[volume(id, sizeMiB=SMALL) for id in (FREE, OTHER)])
    ec2 = simulator.ec2()
    bodies = []
    ec2.meta.events.register(
        "response-received.ec2.*",
        lambda response_dict, **_: bodies.append(response_dict["body"].decode()))
    order = {"InstanceId": HERE, "Device": "/dev/sdf"}
    call(ec2, "attach_volume", {**order, "VolumeId": FREE}, EbsCardIndex="1")
    assert "<ebsCardIndex>1</ebsCardIndex>" in bodies[-1]
    ec2.describe_volumes(VolumeIds=[FREE])
    assert "<ebsCardIndex>1</ebsCardIndex>" in bodies[-1]
    ec2.describe_instances(InstanceIds=[HERE])
    assert "<ebsCardIndex>1</ebsCardIndex>" in bodies[-1]
    assert refusal(call, ec2=ec2, method="attach_volume",
                   parameters={**order, "VolumeId": OTHER, "Device": "/dev/sdg"},
                   EbsCardIndex="2")[0] == "InvalidParameterValue"
    ec2.attach_volume(**{**order, "VolumeId": OTHER, "Device": "/dev/sdg"})
    assert "<ebsCardIndex>0</ebsCardIndex>" in bodies[-1]
    ec2.describe_instance_types(InstanceTypes=["r8gb.48xlarge"])
    assert "<maximumEbsCards>2</maximumEbsCards>" in bodies[-1]
    assert bodies[-1].count("<ebsCardIndex>") == 2


def test_an_instance_with_one_card_has_no_other(simulator, ec2):
    order = {"VolumeId": FREE, "InstanceId": HERE, "Device": "/dev/sdf"}
    assert refusal(call, ec2=ec2, method="attach_volume", parameters=order,
                   EbsCardIndex="1")[0] == "InvalidParameterValue"
    call(ec2, "attach_volume", order, EbsCardIndex="0")
