"""Tests each call and each error of the EC2 API, judged by boto3."""

import datetime
import os
import xml.etree.ElementTree as ElementTree

import pytest
from botocore.exceptions import ClientError
from conftest import FREE, HERE, SMALL, THERE, XEN, attach
from simulator import ZONE, instance, volume

OTHER = "vol-0aaaaaaaaaaaaaaa2"
ABSENT = "vol-0fffffffffffffff1"


def refusal(call, **parameters):
    """The code, HTTP status and message of a rejected call."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    assert len(response["ResponseMetadata"]["RequestId"]) == 36
    return (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"],
            response["Error"]["Message"])


# DescribeVolumes


def test_a_free_volume_is_described_with_botocores_types(ec2):
    [described] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"]
    assert described["VolumeId"] == FREE
    assert described["State"] == "available"
    assert described["AvailabilityZone"] == ZONE
    assert described["Size"] == 1
    assert described["Attachments"] == []
    assert described["Encrypted"] is False
    assert described["MultiAttachEnabled"] is False
    assert isinstance(described["CreateTime"], datetime.datetime)
    age = datetime.datetime.now(datetime.timezone.utc) - described["CreateTime"]
    assert abs(age.total_seconds()) < 60


def test_an_attachment_is_described(simulator, ec2):
    attach(simulator, FREE, HERE)
    [attachment] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["Attachments"]
    assert attachment["InstanceId"] == HERE
    assert attachment["Device"] == "/dev/sdf"
    assert attachment["State"] == "attached"
    assert isinstance(attachment["AttachTime"], datetime.datetime)


def test_a_missing_volume_is_an_error_by_id_and_nothing_by_filter(ec2):
    code, status, message = refusal(ec2.describe_volumes, VolumeIds=[FREE, ABSENT])
    assert (code, status) == ("InvalidVolume.NotFound", 400)
    assert message == f"The volume '{ABSENT}' does not exist."
    by_filter = ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [ABSENT]}])
    assert by_filter["Volumes"] == []


@pytest.mark.parametrize("name, value, found", [
    ("volume-id", FREE, [FREE]), ("volume-id", "vol-0aaa*", [FREE, OTHER]),
    ("status", "available", [FREE]), ("status", "in-use", [OTHER]),
    ("attachment.instance-id", THERE, [OTHER]), ("attachment.device", "/dev/sd?", [OTHER]),
    ("attachment.status", "attached", [OTHER]), ("availability-zone", ZONE, [FREE, OTHER]),
    ("tag:team", "blue", [OTHER]), ("tag-key", "team", [OTHER]), ("tag:team", "red", []),
    ("size", "1", [FREE, OTHER]), ("snapshot-id", "snap-1", [OTHER]),
])
def test_a_filter_picks_its_volumes(start, name, value, found):
    simulator = start(volumes=[
        volume(FREE, sizeMiB=SMALL),
        volume(OTHER, sizeMiB=SMALL, tags={"team": "blue"}, snapshotId="snap-1",
               attachedTo={"instance": THERE, "device": "/dev/sdg"})])
    answer = simulator.ec2().describe_volumes(Filters=[{"Name": name, "Values": [value]}])
    assert [v["VolumeId"] for v in answer["Volumes"]] == found


def test_an_unknown_filter_is_refused(ec2):
    code, _, message = refusal(
        ec2.describe_volumes, Filters=[{"Name": "colour", "Values": ["red"]}])
    assert code == "InvalidParameterValue"
    assert message == "The filter 'colour' is invalid"


def test_pages_cover_all_volumes_once(start):
    ids = [f"vol-0aaaaaaaaaaaaaa{n:02x}" for n in range(12)]
    ec2 = start(volumes=[volume(id, sizeMiB=1) for id in ids]).ec2()
    pages = list(ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(page["Volumes"]) for page in pages] == [5, 5, 2]
    assert [v["VolumeId"] for page in pages for v in page["Volumes"]] == ids


def test_ids_and_pages_exclude_each_other(ec2):
    code, _, _ = refusal(ec2.describe_volumes, VolumeIds=[FREE], MaxResults=5)
    assert code == "InvalidParameterCombination"
    code, _, _ = refusal(ec2.describe_volumes, MaxResults=4)
    assert code == "InvalidParameterValue"
    code, _, _ = refusal(ec2.describe_volumes, MaxResults=5, NextToken="nonsense")
    assert code == "InvalidNextToken"


def test_answers_lag_behind_where_the_region_is_only_eventually_consistent(simulator, ec2):
    simulator.latency(consistency=600_000)
    ec2.attach_volume(VolumeId=FREE, InstanceId=HERE, Device="/dev/sdf")
    assert ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["State"] == "available"
    simulator.latency(consistency=0)
    assert ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["State"] == "in-use"


# DescribeInstances and the rest of instances


def test_an_instance_is_described_with_its_mappings(simulator, ec2):
    attach(simulator, FREE, HERE)
    [reservation] = ec2.describe_instances(InstanceIds=[HERE])["Reservations"]
    [described] = reservation["Instances"]
    assert described["InstanceId"] == HERE
    assert described["State"] == {"Code": 16, "Name": "running"}
    assert described["InstanceType"] == "m6i.large"
    assert described["Placement"]["AvailabilityZone"] == ZONE
    names = [m["DeviceName"] for m in described["BlockDeviceMappings"]]
    assert names == ["/dev/xvda", "/dev/sdf"]
    assert described["BlockDeviceMappings"][1]["Ebs"]["VolumeId"] == FREE
    [network_interface] = described["NetworkInterfaces"]
    assert network_interface["Attachment"]["DeviceIndex"] == 0


def test_a_filter_picks_its_instances(simulator, ec2):
    attach(simulator, FREE, THERE)
    for name, value in [("instance-id", THERE), ("block-device-mapping.volume-id", FREE),
                        ("block-device-mapping.device-name", "/dev/sdf")]:
        found = ec2.describe_instances(Filters=[{"Name": name, "Values": [value]}])
        ids = [i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]]
        assert ids == [THERE], name


def test_a_missing_instance_is_an_error_by_id_and_nothing_by_filter(ec2):
    code, status, message = refusal(ec2.describe_instances, InstanceIds=["i-0fffffffffffffff1"])
    assert (code, status) == ("InvalidInstanceID.NotFound", 400)
    assert message == "The instance ID 'i-0fffffffffffffff1' does not exist"
    code, _, _ = refusal(ec2.describe_instances, InstanceIds=["i-nonsense"])
    assert code == "InvalidInstanceID.Malformed"
    filters = [{"Name": "instance-id", "Values": ["i-0fffffffffffffff1"]}]
    assert ec2.describe_instances(Filters=filters)["Reservations"] == []


def test_a_stopped_instance_keeps_its_volume_and_a_terminated_one_gives_it_back(simulator, ec2):
    attach(simulator, FREE, HERE)
    ec2.stop_instances(InstanceIds=[HERE])
    simulator.wait_until(lambda s: s.instance(HERE)["state"] == "stopped")
    assert simulator.volume(FREE)["state"] == "in-use"
    simulator.wait_until(lambda s: s.volume(FREE)["attachments"][0]["node"] is None)
    statuses = ec2.describe_instance_status(InstanceIds=[HERE], IncludeAllInstances=True)
    assert statuses["InstanceStatuses"][0]["InstanceState"]["Name"] == "stopped"
    ec2.start_instances(InstanceIds=[HERE])
    simulator.wait_until(lambda s: s.volume(FREE)["attachments"][0]["node"])
    changed = ec2.terminate_instances(InstanceIds=[HERE])["TerminatingInstances"][0]
    assert changed["CurrentState"]["Name"] == "shutting-down"
    simulator.wait_for_volume(FREE, "available")


# AttachVolume and DetachVolume


def test_a_volume_is_attached_and_detached(simulator, ec2):
    answer = ec2.attach_volume(VolumeId=FREE, InstanceId=HERE, Device="/dev/sdf")
    assert (answer["State"], answer["Device"]) == ("attaching", "/dev/sdf")
    assert (answer["VolumeId"], answer["InstanceId"]) == (FREE, HERE)
    assert isinstance(answer["AttachTime"], datetime.datetime)
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[FREE], WaiterConfig={"Delay": 1})
    simulator.wait_until(lambda s: s.volume(FREE)["attachments"][0]["node"])
    answer = ec2.detach_volume(VolumeId=FREE, InstanceId=HERE, Device="/dev/sdf")
    assert answer["State"] == "detaching"
    simulator.wait_for_volume(FREE, "available")
    assert ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["Attachments"] == []


@pytest.mark.parametrize("changes, code", [
    ({"VolumeId": ABSENT}, "InvalidVolume.NotFound"),
    ({"VolumeId": "volume"}, "InvalidParameterValue"),
    ({"InstanceId": "i-0fffffffffffffff1"}, "InvalidInstanceID.NotFound"),
    ({"VolumeId": "vol-0bbbbbbbbbbbbbbb1"}, "InvalidVolume.ZoneMismatch"),
    ({"Device": "/dev/sdf1x"}, "InvalidParameterValue"),
    ({"Device": "/dev/xvda"}, "InvalidParameterValue"),
    ({"DryRun": True}, "DryRunOperation"),
])
def test_an_attachment_that_cannot_be_is_refused(start, changes, code):
    simulator = start(volumes=[
        volume(FREE, sizeMiB=SMALL),
        volume("vol-0bbbbbbbbbbbbbbb1", sizeMiB=1, availabilityZone=ZONE[:-1] + "b")])
    wanted = {"VolumeId": FREE, "InstanceId": HERE, "Device": "/dev/sdf", **changes}
    assert refusal(simulator.ec2().attach_volume, **wanted)[0] == code
    assert simulator.volume(FREE)["state"] == "available"


def test_a_volume_in_use_and_a_name_in_use_are_refused(simulator, ec2):
    simulator.create_volume(OTHER, sizeMiB=SMALL)
    attach(simulator, FREE, HERE)
    code, _, message = refusal(
        ec2.attach_volume, VolumeId=FREE, InstanceId=THERE, Device="/dev/sdf")
    assert (code, message) == ("VolumeInUse", f"{FREE} is already attached to an instance")
    code, _, message = refusal(
        ec2.attach_volume, VolumeId=OTHER, InstanceId=HERE, Device="/dev/sdf")
    assert code == "InvalidParameterValue"
    assert message.endswith("Attachment point /dev/sdf is already in use")


def test_a_xen_instance_takes_sdf_and_xvdf_for_one_name(simulator, ec2):
    simulator.create_volume(OTHER, sizeMiB=SMALL)
    attach(simulator, FREE, XEN)
    assert refusal(ec2.attach_volume, VolumeId=OTHER, InstanceId=XEN,
                   Device="/dev/xvdf")[0] == "InvalidParameterValue"


def test_an_instance_takes_no_more_volumes_than_its_limit(start):
    simulator = start(
        instances=[instance(HERE, attachmentLimit=2)],
        volumes=[volume(FREE, sizeMiB=1), volume(OTHER, sizeMiB=1)])
    attach(simulator, FREE, HERE)
    assert refusal(simulator.ec2().attach_volume, VolumeId=OTHER, InstanceId=HERE,
                   Device="/dev/sdg")[0] == "AttachmentLimitExceeded"


def test_network_interfaces_take_places_where_the_limit_is_shared(start):
    simulator = start(
        instances=[instance(HERE, attachmentLimit=3, networkInterfaces=2),
                   instance(THERE, attachmentLimit=3, networkInterfaces=2,
                            attachmentLimitType="dedicated")],
        volumes=[volume(id, sizeMiB=1) for id in (FREE, OTHER)])
    ec2 = simulator.ec2()
    attach(simulator, FREE, HERE)
    assert refusal(ec2.attach_volume, VolumeId=OTHER, InstanceId=HERE,
                   Device="/dev/sdg")[0] == "AttachmentLimitExceeded"
    simulator.control("POST", "/instances", {"id": HERE, "networkInterfaces": 1})
    attach(simulator, OTHER, HERE, "/dev/sdg")
    ec2.detach_volume(VolumeId=OTHER)
    ec2.detach_volume(VolumeId=FREE)
    for id, device in ((FREE, "/dev/sdf"), (OTHER, "/dev/sdg")):
        simulator.wait_for_volume(id, "available")
        attach(simulator, id, THERE, device)


# DescribeInstanceTypes


def ebs_info(ec2, **parameters):
    """What the response's XML says about EBS: Debian 12's botocore does not know the limit."""
    bodies = []
    ec2.meta.events.register(
        "response-received.ec2.DescribeInstanceTypes",
        lambda response_dict, **_: bodies.append(response_dict["body"]))
    [described] = ec2.describe_instance_types(**parameters)["InstanceTypes"]
    [info] = ElementTree.fromstring(bodies[-1]).iter(
        "{http://ec2.amazonaws.com/doc/2016-11-15/}ebsInfo")
    return described, {member.tag.split("}")[1]: member.text for member in info}


def test_an_instance_type_is_described_with_botocores_types_and_its_limit(start):
    ec2 = start(instances=[instance(HERE, type="m5d.large", attachmentLimit=26,
                                    instanceStoreDisks=1)]).ec2()
    described, info = ebs_info(ec2, InstanceTypes=["m5d.large"])
    assert described["InstanceType"] == "m5d.large"
    assert described["Hypervisor"] == "nitro"
    assert described["BareMetal"] is False
    assert described["InstanceStorageSupported"] is True
    assert described["InstanceStorageInfo"]["Disks"] == [
        {"SizeInGB": 75, "Count": 1, "Type": "ssd"}]
    assert described["EbsInfo"]["NvmeSupport"] == "required"
    assert info["maximumEbsAttachments"] == "26"
    assert info["attachmentLimitType"] == "shared"


def test_a_filter_picks_instance_types_and_an_unknown_type_is_refused(start):
    ec2 = start(instances=[instance(HERE, attachmentLimitType="none"),
                           instance(THERE, type="m4.large", mode="xen")]).ec2()
    described, info = ebs_info(
        ec2, Filters=[{"Name": "instance-type", "Values": ["m4.large"]}])
    assert (described["InstanceType"], described["Hypervisor"]) == ("m4.large", "xen")
    assert info["maximumEbsAttachments"] == "40"
    _, info = ebs_info(ec2, InstanceTypes=["m6i.large"])
    assert "maximumEbsAttachments" not in info
    filters = [{"Name": "instance-type", "Values": ["x9.huge"]}]
    assert ec2.describe_instance_types(Filters=filters)["InstanceTypes"] == []
    code, _, message = refusal(ec2.describe_instance_types, InstanceTypes=["x9.huge"])
    assert code == "InvalidInstanceType"
    assert message.endswith("do not exist: [x9.huge]")


def test_a_multi_attach_volume_goes_to_two_instances(start):
    simulator = start(volumes=[
        volume(FREE, sizeMiB=SMALL, volumeType="io2", multiAttachEnabled=True)])
    ec2 = simulator.ec2()
    attach(simulator, FREE, HERE)
    attach(simulator, FREE, THERE)
    [described] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"]
    assert described["MultiAttachEnabled"] is True
    assert {a["InstanceId"] for a in described["Attachments"]} == {HERE, THERE}
    ec2.detach_volume(VolumeId=FREE, InstanceId=HERE)
    simulator.wait_until(lambda s: len(s.volume(FREE)["attachments"]) == 1)
    assert simulator.volume(FREE)["state"] == "in-use"


def test_a_detach_of_what_is_not_attached_is_refused(simulator, ec2):
    code, _, message = refusal(ec2.detach_volume, VolumeId=FREE)
    assert code == "IncorrectState"
    assert message == f"Volume '{FREE}' is in the 'available' state."
    attach(simulator, FREE, HERE)
    assert refusal(ec2.detach_volume, VolumeId=FREE,
                   InstanceId=THERE)[0] == "InvalidAttachment.NotFound"
    assert refusal(ec2.detach_volume, VolumeId=FREE, InstanceId=HERE,
                   Device="/dev/sdz")[0] == "InvalidAttachment.NotFound"
    assert refusal(ec2.detach_volume, VolumeId=ABSENT)[0] == "InvalidVolume.NotFound"
    assert simulator.volume(FREE)["attachments"][0]["state"] == "attached"


def test_a_volume_that_is_still_being_created_cannot_be_attached(simulator, ec2):
    simulator.latency(change=600_000)
    made = ec2.create_volume(AvailabilityZone=ZONE, Size=1)
    assert made["State"] == "creating"
    assert refusal(ec2.attach_volume, VolumeId=made["VolumeId"], InstanceId=HERE,
                   Device="/dev/sdf")[0] == "IncorrectState"


# Tags, and volumes that come and go


def test_tags_are_set_changed_and_removed(ec2):
    def tags():
        described = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0].get("Tags", [])
        return {t["Key"]: t["Value"] for t in described}

    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "a:b", "Value": "<1> & é"},
                                            {"Key": "empty", "Value": ""}])
    assert tags() == {"a:b": "<1> & é", "empty": ""}
    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "empty", "Value": "no more"}])
    ec2.delete_tags(Resources=[FREE], Tags=[{"Key": "a:b", "Value": "another"}])
    assert tags() == {"a:b": "<1> & é", "empty": "no more"}
    ec2.delete_tags(Resources=[FREE], Tags=[{"Key": "a:b"}])
    assert tags() == {"empty": "no more"}
    rows = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [FREE]}])["Tags"]
    assert rows == [{"Key": "empty", "ResourceId": FREE, "ResourceType": "volume",
                     "Value": "no more"}]
    assert refusal(ec2.create_tags, Resources=[ABSENT],
                   Tags=[{"Key": "a", "Value": "b"}])[0] == "InvalidVolume.NotFound"


def test_a_volume_bears_50_tags(simulator, ec2):
    fifty = [{"Key": f"k{n}", "Value": ""} for n in range(50)]
    ec2.create_tags(Resources=[FREE], Tags=fifty)
    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "k7", "Value": "changed"}])
    code, status, _ = refusal(
        ec2.create_tags, Resources=[FREE], Tags=[{"Key": "one more", "Value": ""}])
    assert (code, status) == ("TagLimitExceeded", 400)
    assert len(simulator.volume(FREE)["tags"]) == 50
    ec2.delete_tags(Resources=[FREE], Tags=[{"Key": "k0"}])
    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "one more", "Value": ""}])


def test_tags_alone_can_be_told_late(simulator, ec2):
    simulator.latency(tagConsistency=600_000)
    ec2.create_tags(Resources=[FREE], Tags=[{"Key": "a", "Value": "b"}])
    attach(simulator, FREE, HERE)
    [described] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"]
    assert "Tags" not in described
    assert described["State"] == "in-use"
    simulator.latency(tagConsistency=0)
    [described] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"]
    assert described["Tags"] == [{"Key": "a", "Value": "b"}]


def test_a_volume_is_created_attached_and_deleted(simulator, ec2):
    specification = [{"ResourceType": "volume", "Tags": [{"Key": "k", "Value": "v"}]}]
    made = ec2.create_volume(AvailabilityZone=ZONE, Size=2, VolumeType="gp3",
                             TagSpecifications=specification)
    id = made["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[id], WaiterConfig={"Delay": 1})
    attach(simulator, id, HERE)
    assert refusal(ec2.delete_volume, VolumeId=id)[0] == "VolumeInUse"
    ec2.detach_volume(VolumeId=id)
    simulator.wait_for_volume(id, "available")
    ec2.delete_volume(VolumeId=id)
    simulator.wait_until(lambda s: all(v["id"] != id for v in s.state()["volumes"]))
    assert refusal(ec2.describe_volumes, VolumeIds=[id])[0] == "InvalidVolume.NotFound"


def test_a_volume_only_grows(simulator, ec2):
    modified = ec2.modify_volume(VolumeId=FREE, Size=3)["VolumeModification"]
    assert (modified["OriginalSize"], modified["TargetSize"]) == (1, 3)
    assert ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["Size"] == 3
    assert refusal(ec2.modify_volume, VolumeId=FREE, Size=2)[0] == "InvalidParameterValue"


def test_an_encrypted_volume_names_its_key(start):
    key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    simulator = start(volumes=[volume(FREE, sizeMiB=SMALL, kmsKeyId=key)])
    [described] = simulator.ec2().describe_volumes(VolumeIds=[FREE])["Volumes"]
    assert (described["Encrypted"], described["KmsKeyId"]) == (True, key)


def test_a_volume_becomes_a_multi_attach_one_while_it_is_detached(start):
    simulator = start(volumes=[volume(FREE, sizeMiB=4096)])
    ec2 = simulator.ec2()
    assert refusal(ec2.modify_volume, VolumeId=FREE, VolumeType="gp3",
                   MultiAttachEnabled=True)[0] == "InvalidParameterCombination"
    attach(simulator, FREE, HERE)
    ec2.modify_volume(VolumeId=FREE, VolumeType="io2")
    assert refusal(ec2.modify_volume, VolumeId=FREE,
                   MultiAttachEnabled=True)[0] == "IncorrectState"
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")
    modified = ec2.modify_volume(VolumeId=FREE, MultiAttachEnabled=True)["VolumeModification"]
    assert modified["TargetMultiAttachEnabled"] is True
    [described] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"]
    assert (described["VolumeType"], described["MultiAttachEnabled"]) == ("io2", True)
    attach(simulator, FREE, HERE)
    attach(simulator, FREE, THERE)


# Root volumes, and what goes with its instance


def root_of(name, **fields):
    return volume(FREE, sizeMiB=SMALL, attachedTo={"instance": name, "device": "/dev/xvda", **fields})


def test_a_volume_attached_by_the_roots_name_is_the_root_volume(start):
    simulator = start(volumes=[root_of(HERE)])
    ec2 = simulator.ec2()
    [reservation] = ec2.describe_instances(InstanceIds=[HERE])["Reservations"]
    [described] = reservation["Instances"]
    assert described["RootDeviceName"] == "/dev/xvda"
    [mapping] = described["BlockDeviceMappings"]
    assert (mapping["DeviceName"], mapping["Ebs"]["VolumeId"]) == ("/dev/xvda", FREE)
    assert mapping["Ebs"]["DeleteOnTermination"] is True
    [attachment] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["Attachments"]
    assert (attachment["Device"], attachment["DeleteOnTermination"]) == ("/dev/xvda", True)
    assert simulator.wait_until(
        lambda s: s.volume(FREE)["attachments"][0]["node"]).endswith("/nvme0n1")
    code, _, message = refusal(ec2.detach_volume, VolumeId=FREE)
    assert code == "OperationNotPermitted"
    assert message == f"Unable to detach root volume '{FREE}' from instance '{HERE}'"
    # Once the instance is stopped, EC2 allows it.
    ec2.stop_instances(InstanceIds=[HERE])
    simulator.wait_until(lambda s: s.instance(HERE)["state"] == "stopped")
    ec2.detach_volume(VolumeId=FREE)
    simulator.wait_for_volume(FREE, "available")


@pytest.mark.parametrize("flag", [True, False])
def test_a_volume_goes_with_its_instance_if_that_says_so(start, flag):
    simulator = start(volumes=[volume(FREE, sizeMiB=SMALL)])
    ec2 = simulator.ec2()
    attach(simulator, FREE, HERE)
    [attachment] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["Attachments"]
    assert attachment["DeleteOnTermination"] is False
    ec2.modify_instance_attribute(InstanceId=HERE, BlockDeviceMappings=[
        {"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": flag}}])
    [attachment] = ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["Attachments"]
    assert attachment["DeleteOnTermination"] is flag
    ec2.terminate_instances(InstanceIds=[HERE])
    if flag:
        simulator.wait_until(lambda s: s.state()["volumes"] == [])
    else:
        simulator.wait_for_volume(FREE, "available")


def test_no_other_attribute_of_an_instance_is_modified(ec2):
    code, _, _ = refusal(ec2.modify_instance_attribute, InstanceId=HERE, BlockDeviceMappings=[
        {"DeviceName": "/dev/sdz", "Ebs": {"DeleteOnTermination": True}}])
    assert code == "InvalidInstanceAttributeValue"


# Hibernation


def test_a_hibernated_instance_tells_so_and_keeps_its_devices(start):
    simulator = start(instances=[instance(HERE, canHibernate=True), instance(THERE)],
                      volumes=[volume(FREE, sizeMiB=SMALL)])
    ec2 = simulator.ec2()

    def described(id):
        [reservation] = ec2.describe_instances(InstanceIds=[id])["Reservations"]
        return reservation["Instances"][0]

    assert refusal(ec2.stop_instances, InstanceIds=[THERE],
                   Hibernate=True)[0] == "UnsupportedHibernationConfiguration"
    assert described(THERE)["HibernationOptions"] == {"Configured": False}
    assert described(HERE)["HibernationOptions"] == {"Configured": True}
    assert "StateReason" not in described(HERE)
    node = attach(simulator, FREE, HERE)
    for hibernates, code in [(True, "Client.UserInitiatedHibernate"),
                             (False, "Client.UserInitiatedShutdown")]:
        ec2.stop_instances(InstanceIds=[HERE], Hibernate=hibernates)
        simulator.wait_until(lambda s: s.instance(HERE)["state"] == "stopped")
        assert described(HERE)["StateReason"]["Code"] == code
        if hibernates:
            assert os.path.exists(node)
        else:
            simulator.wait_until(lambda s: not os.path.exists(node))
        ec2.start_instances(InstanceIds=[HERE])
        simulator.wait_until(lambda s: s.instance(HERE)["state"] == "running")
        assert "StateReason" not in described(HERE)
        simulator.wait_until(lambda s: os.path.exists(node))


# The API at large


def test_an_action_that_does_not_exist_here_is_refused(ec2):
    code, status, message = refusal(ec2.describe_vpcs)
    assert (code, status) == ("InvalidAction", 400)
    assert message == "The action DescribeVpcs is not valid for this web service."


def test_a_missing_parameter_is_named(simulator):
    unchecked = simulator.ec2(parameter_validation=False)
    code, _, message = refusal(unchecked.attach_volume, VolumeId=FREE, InstanceId=HERE)
    assert code == "MissingParameter"
    assert message == "The request must contain the parameter device"


def test_calls_beyond_the_bucket_are_throttled(simulator, ec2):
    simulator.control("POST", "/buckets", {"CreateTags": {"burst": 2, "perSecond": 0.001}})
    tags = {"Resources": [FREE], "Tags": [{"Key": "a", "Value": "b"}]}
    ec2.create_tags(**tags)
    ec2.create_tags(**tags)
    code, status, _ = refusal(ec2.create_tags, **tags)
    assert (code, status) == ("RequestLimitExceeded", 503)
    ec2.describe_volumes(VolumeIds=[FREE])
    simulator.control("POST", "/buckets", False)
    ec2.create_tags(**tags)


def test_describing_without_filter_draws_on_the_smaller_bucket(simulator, ec2):
    simulator.control("POST", "/buckets", {"unfiltered": {"burst": 1, "perSecond": 0.001}})
    ec2.describe_volumes()
    assert refusal(ec2.describe_volumes)[0] == "RequestLimitExceeded"
    ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [FREE]}])


def test_calls_and_connections_are_counted(simulator, ec2):
    simulator.reset_counters()
    for _ in range(3):
        ec2.describe_volumes(VolumeIds=[FREE])
    refusal(ec2.detach_volume, VolumeId=FREE)
    counters = simulator.counters()
    assert counters["calls"] == {"DescribeVolumes": 3, "DetachVolume": 1}
    assert counters["errors"] == {"IncorrectState": 1}
    assert (counters["connections"], counters["handshakes"]) == (1, 1)


def test_a_round_trip_takes_its_latency(simulator, ec2):
    ec2.describe_volumes(VolumeIds=[FREE])
    simulator.latency(api=200)
    begin = simulator.state()["ns"]
    ec2.describe_volumes(VolumeIds=[FREE])
    assert simulator.state()["ns"] - begin >= 200_000_000
