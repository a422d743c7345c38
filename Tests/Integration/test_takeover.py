"""Tests takeovers under realistic conditions: outdated responses, throttled calls, tags that others
change. Each test ends with one host that has the volume and can write to it; the other was told why
it has not.
"""

import itertools
import os
import pathlib
import signal
import subprocess

import pytest

from conftest import HERE, THERE
from daemon import PluginError, answer_of

LEASE = "polarity-ecs-ebs-plugin:mounted-on"
ATTACHED_BY = "polarity-ecs-ebs-plugin:attached-by"


@pytest.fixture(scope="session")
def instance_ids():
    return (f"i-{number:017x}" for number in itertools.count(0x1A7E00000001))


@pytest.fixture(autouse=True)
def usual_latency(simulator):
    yield
    simulator.latency(detach=30, tagConsistency=0)


@pytest.fixture
def hosts(start):
    """Volumes linger on both for good."""
    return {name: start(name, DETACH_AFTER="never") for name in (HERE, THERE)}


@pytest.fixture
def new_instance(simulator, instance_ids):
    """Makes an instance for this test; its id. At the end it is terminated, which deletes its root
    volume."""
    made = []

    def make(**fields):
        name = next(instance_ids)
        simulator.control("POST", "/instances", {"id": name, **fields})
        made.append(name)
        return name

    yield make
    for name in made:
        simulator.ec2().terminate_instances(InstanceIds=[name])
        simulator.wait_until(lambda s: s.instance(name)["state"] == "terminated")


def tags(simulator, volume):
    return simulator.volume(volume)["tags"]


def mark(simulator, volume, instance):
    """What the plugin's tag of its attachment has to say."""
    [attachment] = simulator.volume(volume)["attachments"]
    return f"{instance} {volume} {attachment['device']}"


def owners(simulator, volume):
    return [(a["instance"], a["state"]) for a in simulator.volume(volume)["attachments"]]


def write_and_sync(mountpoint, name="file"):
    with open(mountpoint / name, "w") as file:
        file.write("acknowledged")
        file.flush()
        os.fsync(file.fileno())


def linger(simulator, daemon, volume):
    """The volume is attached to the daemon's instance, unmounted, and without a lease."""
    daemon.mount(volume)
    daemon.unmount(volume)
    simulator.wait_until(lambda s: LEASE not in tags(s, volume), what="the end of the lease")


def wait_for_fault(simulator, action, since):
    simulator.wait_until(
        lambda s: any(e["event"] == "fault" and e["detail"].startswith(action)
                      for e in s.events(since)), what=f"a fault of {action}")


# A takeover acts on a new look


def test_a_throttled_detachment_is_decided_upon_anew(simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    linger(simulator, hosts[THERE], volume)
    simulator.fault("DetachVolume", "error", code="RequestLimitExceeded", count=2)
    write_and_sync(hosts[HERE].mount(volume))
    assert owners(simulator, volume) == [(HERE, "attached")]


@pytest.mark.parametrize("kind", ["lostBefore", "lostAfter"])
def test_a_detachment_whose_answer_was_lost_is_looked_for(simulator, hosts, new_volume, kind):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    linger(simulator, hosts[THERE], volume)
    simulator.fault("DetachVolume", kind)
    write_and_sync(hosts[HERE].mount(volume))
    assert owners(simulator, volume) == [(HERE, "attached")]


def test_a_volume_that_was_mounted_while_its_detachment_was_throttled_stays_where_it_is(
        simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    linger(simulator, hosts[THERE], volume)
    simulator.fault("DetachVolume", "error", code="RequestLimitExceeded", count=1000)
    since = simulator.events()[-1]["sequence"]
    taking = hosts[HERE].start_call("VolumeDriver.Mount", Name=volume, ID="x")
    wait_for_fault(simulator, "DetachVolume", since)
    mounted = hosts[THERE].mount(volume)
    simulator.clear_faults()
    with pytest.raises(PluginError, match=f"mounted on {THERE}"):
        answer_of(taking)
    assert owners(simulator, volume) == [(THERE, "attached")]
    write_and_sync(mounted)


def test_a_detachment_that_was_sent_before_the_lease_was_there_is_noticed(
        simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    hosts[HERE].create(volume)
    simulator.latency(detach=1500)
    simulator.fault("CreateTags", "held")
    since = simulator.events()[-1]["sequence"]
    mounting = hosts[HERE].start_call("VolumeDriver.Mount", Name=volume, ID="x")
    wait_for_fault(simulator, "CreateTags", since)
    simulator.wait_until(
        lambda s: any(e["event"] == "device-created" for e in s.events(since)))
    # As from a host that looked before the lease was written.
    simulator.ec2().detach_volume(VolumeId=volume, InstanceId=HERE)
    simulator.clear_faults()
    answer_of(mounting)
    assert owners(simulator, volume) in ([(HERE, "attaching")], [(HERE, "attached")])
    write_and_sync(hosts[HERE].mount_path / volume)
    assert tags(simulator, volume)[LEASE] == HERE


def test_a_lease_that_ec2_tells_late_is_waited_for(simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    simulator.latency(tagConsistency=1500)
    mounted = hosts[THERE].mount(volume)
    with pytest.raises(PluginError, match=f"mounted on {THERE}"):
        hosts[HERE].mount(volume)
    assert owners(simulator, volume) == [(THERE, "attached")]
    write_and_sync(mounted)


def test_a_host_that_may_not_write_tags_takes_nothing_from_a_running_one(
        simulator, hosts, new_volume):
    volume, other = new_volume(content="xfs"), new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    hosts[HERE].create(other)
    simulator.fault("CreateTags", "error", code="UnauthorizedOperation", probability=1)
    mounted = hosts[THERE].mount(volume)
    # It learns from its own mounts that its role lacks the permission.
    hosts[HERE].mount(other)
    with pytest.raises(PluginError, match=f"{THERE}.*ec2:CreateTags"):
        hosts[HERE].mount(volume)
    assert owners(simulator, volume) == [(THERE, "attached")]
    write_and_sync(mounted)
    hosts[HERE].unmount(other)
    hosts[HERE].call("VolumeDriver.Remove", Name=volume)
    hosts[HERE].create(volume, takeover="always")
    write_and_sync(hosts[HERE].mount(volume))


def test_if_released_takes_what_the_plugin_has_attached_and_released(
        simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    hosts[HERE].create(volume, takeover="if-released")
    hosts[THERE].create(volume)
    hosts[THERE].mount(volume)
    assert tags(simulator, volume)[ATTACHED_BY] == mark(simulator, volume, THERE)
    with pytest.raises(PluginError, match=f"mounted on {THERE}"):
        hosts[HERE].mount(volume)
    hosts[THERE].unmount(volume)
    simulator.wait_until(lambda s: LEASE not in tags(s, volume), what="the end of the lease")
    write_and_sync(hosts[HERE].mount(volume))
    assert owners(simulator, volume) == [(HERE, "attached")]
    assert tags(simulator, volume)[ATTACHED_BY] == mark(simulator, volume, HERE)


@pytest.mark.parametrize("source", [None, "vol-0123456789abcdef0"])
def test_if_released_leaves_what_somebody_attached_by_hand(
        simulator, hosts, new_volume, source):
    volume = new_volume(
        content="xfs", attachedTo={"instance": THERE, "device": "/dev/sdp"},
        # A restored backup has the tags of its source.
        tags={ATTACHED_BY: f"{THERE} {source} /dev/sdp"} if source else {})
    hosts[HERE].create(volume, takeover="if-released")
    with pytest.raises(PluginError, match=f"attached to {THERE}.*if-released"):
        hosts[HERE].mount(volume)
    assert owners(simulator, volume) == [(THERE, "attached")]


# Multi-Attach after Create


def test_a_volume_that_became_a_multi_attach_one_is_mounted_writable_nowhere(
        simulator, hosts, new_volume):
    volume = new_volume(content="xfs", sizeMiB=4096)
    for daemon in hosts.values():
        daemon.create(volume)
    simulator.ec2().modify_volume(VolumeId=volume, VolumeType="io2", MultiAttachEnabled=True)
    for daemon in hosts.values():
        with pytest.raises(PluginError, match="Multi-Attach"):
            daemon.mount(volume)
        assert not (daemon.mount_path / volume).is_mount()


# A lease that others change


@pytest.mark.parametrize("change", ["removed", "overwritten"])
def test_a_lease_that_somebody_changes_is_restored_with_a_warning(
        simulator, hosts, new_volume, change):
    volume = new_volume(content="xfs")
    hosts[HERE].create(volume)
    hosts[HERE].mount(volume)
    ec2 = simulator.ec2()
    if change == "removed":
        ec2.delete_tags(Resources=[volume], Tags=[{"Key": LEASE}])
    else:
        ec2.create_tags(Resources=[volume], Tags=[{"Key": LEASE, "Value": THERE}])
    simulator.wait_until(
        lambda s: tags(s, volume).get(LEASE) == HERE, timeout=90, what="the lease")
    warning = next(line for line in hosts[HERE].log().splitlines()
                   if volume in line and "the lease of a mounted volume" in line and "warning" in line)
    assert change == "removed" or THERE in warning


def test_a_container_that_joins_restores_the_lease(simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    hosts[THERE].mount(volume)
    simulator.ec2().delete_tags(Resources=[volume], Tags=[{"Key": LEASE}])
    mounted = hosts[THERE].mount(volume, "second")
    simulator.wait_until(
        lambda s: tags(s, volume).get(LEASE) == THERE, timeout=90, what="the lease")
    with pytest.raises(PluginError, match=f"mounted on {THERE}"):
        hosts[HERE].mount(volume)
    write_and_sync(mounted)


# What this plugin has not attached stays


def cycle(simulator, daemon, volume):
    """Makes the daemon attach, mount, unmount and detach a volume, that is, do everything that it
    does."""
    daemon.create(volume)
    daemon.mount(volume)
    daemon.unmount(volume)
    simulator.wait_for_volume(volume, "available")


def test_a_copied_lease_releases_nothing(simulator, start, new_volume):
    source = "vol-0123456789abcdef0"
    copy = new_volume(
        content="xfs", attachedTo={"instance": HERE, "device": "/dev/sdo"},
        tags={LEASE: HERE, ATTACHED_BY: f"{HERE} {source} /dev/sdo"})
    own = new_volume(content="xfs", attachedTo={"instance": HERE, "device": "/dev/sdp"})
    simulator.ec2().create_tags(Resources=[own], Tags=[
        {"Key": LEASE, "Value": HERE},
        {"Key": ATTACHED_BY, "Value": f"{HERE} {own} /dev/sdp"}])
    daemon = start(HERE)
    # A volume that an earlier run of this plugin attached is released; its record was lost.
    simulator.wait_for_volume(own, "available")
    cycle(simulator, daemon, new_volume(content="xfs"))
    assert owners(simulator, copy) == [(HERE, "attached")]
    # Somebody may have it mounted by hand: the tag keeps other hosts off.
    assert tags(simulator, copy)[LEASE] == HERE


def test_a_volume_that_was_attached_by_hand_is_used_and_left_attached(
        simulator, start, new_volume):
    volume = new_volume(content="xfs")
    daemon = start(HERE)
    daemon.create(volume)
    simulator.ec2().attach_volume(VolumeId=volume, InstanceId=HERE, Device="/dev/sdp")
    simulator.wait_until(lambda s: s.volume(volume)["attachments"][0]["node"])
    daemon.stop()
    daemon.start()
    cycle(simulator, daemon, new_volume(content="xfs"))
    assert owners(simulator, volume) == [(HERE, "attached")]
    write_and_sync(daemon.mount(volume))
    daemon.unmount(volume)
    simulator.wait_until(lambda s: LEASE not in tags(s, volume), what="the end of the lease")
    cycle(simulator, daemon, new_volume(content="xfs"))
    assert owners(simulator, volume) == [(HERE, "attached")]


def test_a_volume_that_somebody_mounted_by_hand_outlives_restarts(
        simulator, start, new_volume, tmp_path):
    volume = new_volume(content="xfs")
    daemon = start(HERE)
    daemon.create(volume)
    simulator.ec2().attach_volume(VolumeId=volume, InstanceId=HERE, Device="/dev/sdp")
    node = simulator.wait_until(lambda s: s.volume(volume)["attachments"][0]["node"])
    place = tmp_path / "by-hand"
    place.mkdir()
    subprocess.run(["mount", node, place], check=True)
    try:
        daemon.stop()
        daemon.start()
        cycle(simulator, daemon, new_volume(content="xfs"))
        write_and_sync(place)
    finally:
        subprocess.run(["umount", place], check=True)
    # Now nothing holds it, and still the plugin must not detach it.
    daemon.stop()
    daemon.start()
    cycle(simulator, daemon, new_volume(content="xfs"))
    assert owners(simulator, volume) == [(HERE, "attached")]


# Root volumes, and what goes with its instance


def test_the_root_volume_of_a_stopped_instance_is_not_taken(
        simulator, hosts, new_instance, new_volume):
    doomed = new_instance(state="stopped")
    root = new_volume(content="xfs", attachedTo={"instance": doomed, "device": "/dev/xvda"})
    with pytest.raises(PluginError, match=f"root volume of {doomed}"):
        hosts[HERE].create(root)
    assert owners(simulator, root) == [(doomed, "attached")]


def test_an_instances_own_root_volume_is_not_mounted(simulator, start, new_instance, new_volume):
    own = new_instance()
    root = new_volume(content="xfs", attachedTo={"instance": own, "device": "/dev/xvda"})
    simulator.wait_until(lambda s: s.volume(root)["attachments"][0]["node"])
    daemon = start(own)
    with pytest.raises(PluginError, match="root volume"):
        daemon.create(root)
        daemon.mount(root)
    assert not (daemon.mount_path / root).is_mount()
    assert LEASE not in tags(simulator, root)


def test_a_volume_that_goes_with_its_instance_is_warned_of(simulator, start, new_volume):
    volume = new_volume(content="xfs", attachedTo={
        "instance": HERE, "device": "/dev/sdp", "deleteOnTermination": True})
    simulator.wait_until(lambda s: s.volume(volume)["attachments"][0]["node"])
    daemon = start(HERE)
    daemon.create(volume)
    daemon.mount(volume)
    told = "aws ec2 modify-instance-attribute"
    assert any(told in line and volume in line and "warning" in line
               for line in daemon.log().splitlines())
    status = daemon.call("VolumeDriver.Get", Name=volume)["Volume"]["Status"]
    assert any(told in str(value) and HERE in str(value) for value in status.values())
    daemon.unmount(volume)


# What a mount may not fail for, and an owner that only sleeps


def test_a_volume_that_has_all_its_tags_is_mounted_without_a_lease(
        simulator, hosts, new_volume):
    volume = new_volume(content="xfs", tags={f"k{number}": "" for number in range(50)})
    hosts[HERE].create(volume)
    write_and_sync(hosts[HERE].mount(volume))
    assert len(tags(simulator, volume)) == 50
    assert any("TagLimitExceeded" in line and volume in line and "warning" in line
               for line in hosts[HERE].log().splitlines())


def test_an_owner_that_ec2_knows_no_more_is_looked_at_again(simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    linger(simulator, hosts[THERE], volume)
    simulator.fault("DetachVolume", "error", code="InvalidInstanceID.NotFound")
    write_and_sync(hosts[HERE].mount(volume))
    assert owners(simulator, volume) == [(HERE, "attached")]


def test_a_hibernated_owner_keeps_what_it_has_mounted(
        simulator, start, new_instance, new_volume):
    volume = new_volume(content="xfs")
    asleep = new_instance(canHibernate=True)
    sleeper, here = start(asleep), start(HERE)
    for daemon in (sleeper, here):
        daemon.create(volume)
    mounted = sleeper.mount(volume)
    sleeper.process.send_signal(signal.SIGSTOP)
    ec2 = simulator.ec2()
    try:
        ec2.stop_instances(InstanceIds=[asleep], Hibernate=True)
        simulator.wait_until(lambda s: s.instance(asleep)["state"] == "stopped")
        with pytest.raises(PluginError, match=f"{asleep}.*hibernat"):
            here.mount(volume)
        assert owners(simulator, volume) == [(asleep, "attached")]
        ec2.start_instances(InstanceIds=[asleep])
        simulator.wait_until(lambda s: s.instance(asleep)["state"] == "running")
    finally:
        sleeper.process.send_signal(signal.SIGCONT)
    write_and_sync(mounted)
    sleeper.unmount(volume)
    simulator.wait_for_volume(volume, "available")
    write_and_sync(here.mount(volume))
    here.unmount(volume)


# A device that was taken away under its mount


@pytest.fixture
def held(tmp_path):
    """Keeps the current mounts in a separate mount namespace, at a separate directory, as a
    container does: a copy at the same directory would be unmounted too."""
    holders = []

    def hold(mountpoint):
        own = tmp_path / f"held{len(holders)}"
        own.mkdir()
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             'mount --bind "$0" "$1" && echo ready && exec sleep infinity', mountpoint, own],
            stdout=subprocess.PIPE)
        holders.append(holder)
        holder.stdout.readline()
        assert str(own) in pathlib.Path(f"/proc/{holder.pid}/mountinfo").read_text()

    yield hold
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize("stays", [False, True])
def test_a_volume_comes_back_beside_its_dead_device(simulator, start, new_volume, held, stays):
    volume = new_volume(content="xfs")
    daemon = start(HERE)
    daemon.create(volume)
    if stays:
        simulator.fault("Device", "deviceStays", volume=volume)
    held(daemon.mount(volume))
    simulator.ec2().detach_volume(VolumeId=volume, InstanceId=HERE)
    simulator.wait_for_volume(volume, "available")
    daemon.unmount(volume)
    write_and_sync(daemon.mount(volume))
    [attachment] = simulator.volume(volume)["attachments"]
    assert attachment["instance"] == HERE
    assert attachment["node"].endswith("/nvme1n2")
    daemon.unmount(volume)


# An encrypted volume whose key EC2 may not use


def test_an_attachment_that_ends_for_its_key_names_the_key(simulator, hosts, new_volume):
    key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    volume = new_volume(content="xfs", kmsKeyId=key)
    hosts[HERE].create(volume)
    simulator.fault("Device", "attachmentEnds", milliseconds=500, count=9)
    with pytest.raises(PluginError) as caught:
        hosts[HERE].mount(volume)
    assert key in str(caught.value) and "kms:CreateGrant" in str(caught.value)


def test_an_attachment_that_is_refused_for_its_key_names_the_key(simulator, hosts, new_volume):
    key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    volume = new_volume(content="xfs", kmsKeyId=key)
    hosts[HERE].create(volume)
    simulator.fault("AttachVolume", "error", code="CustomerKeyHasBeenRevoked", count=9,
                    message="The encrypted volume was unable to access the KMS master key.")
    with pytest.raises(PluginError) as caught:
        hosts[HERE].mount(volume)
    assert key in str(caught.value) and "kms:CreateGrant" in str(caught.value)
