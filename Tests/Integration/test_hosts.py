"""Tests two instances that want the same volume: at most one gets it, and the other is told
which."""

import concurrent.futures
import subprocess

import pytest

from conftest import HERE, THERE, XEN
from daemon import PluginError, answer_of

LEASE = "polarity-ecs-ebs-plugin:mounted-on"


@pytest.fixture
def hosts(start):
    return {HERE: start(HERE), THERE: start(THERE)}


def try_to_mount(daemon, volume):
    try:
        return daemon.mount(volume)
    except PluginError as error:
        return error


def owner(simulator, volume):
    return [a["instance"] for a in simulator.volume(volume)["attachments"]]


def test_of_two_that_mount_at_once_one_has_it_and_the_other_is_told_which(
        simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = dict(zip(hosts, pool.map(
            lambda daemon: try_to_mount(daemon, volume), hosts.values())))
    winners = [name for name, result in results.items() if not isinstance(result, PluginError)]
    assert len(winners) == 1, results
    loser = next(name for name in hosts if name not in winners)
    assert owner(simulator, volume) == winners
    assert winners[0] in str(results[loser])
    # Once the winner's container has stopped, the other instance gets it.
    hosts[winners[0]].unmount(volume)
    hosts[loser].mount(volume)
    assert owner(simulator, volume) == [loser]
    hosts[loser].unmount(volume)


def test_an_instance_that_was_stopped_loses_its_volume_at_once(simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    for daemon in hosts.values():
        daemon.create(volume)
    hosts[THERE].mount(volume)
    # The machine disappears, together with its mounts.
    hosts[THERE].kill()
    hosts[THERE].__exit__()
    simulator.control("POST", "/instances", {"id": THERE, "state": "stopped"})
    simulator.wait_until(lambda s: s.instance(THERE)["state"] == "stopped")
    try:
        assert hosts[HERE].mount(volume).is_mount()
        assert simulator.volume(volume)["tags"][LEASE] == HERE
        assert "force=true" not in hosts[HERE].log()
    finally:
        hosts[HERE].unmount(volume)
        simulator.control("POST", "/instances", {"id": THERE, "state": "running"})
        simulator.wait_until(lambda s: s.instance(THERE)["state"] == "running")


def test_with_takeover_always_a_running_instance_loses_what_it_has_mounted(
        simulator, hosts, new_volume):
    volume = new_volume(content="xfs")
    hosts[HERE].create(volume, takeover="always")
    hosts[THERE].create(volume)
    lost = hosts[THERE].mount(volume)
    (lost / "synced").write_text("kept")
    subprocess.run(["sync", "-f", lost], check=True)
    kept = hosts[HERE].mount(volume) / "synced"
    assert kept.read_text() == "kept"
    assert owner(simulator, volume) == [HERE]
    hosts[THERE].wait_until(lambda d: "the device of a mounted volume is gone" in d.log())
    hosts[THERE].unmount(volume)
    hosts[HERE].unmount(volume)


def test_with_takeover_always_a_xen_instance_gives_up_what_it_has_unmounted(
        simulator, start, new_volume):
    volume = new_volume(content="xfs")
    here, there = start(HERE), start(XEN)
    here.create(volume, takeover="always")
    there.create(volume)
    there.mount(volume)
    connection = here.start_call("VolumeDriver.Mount", Name=volume, ID="x")
    simulator.wait_until(
        lambda s: [a["state"] for a in s.volume(volume)["attachments"]] == ["busy"])
    assert not (here.mount_path / volume).is_mount()
    there.unmount(volume)
    answer_of(connection)
    assert owner(simulator, volume) == [HERE]
    here.unmount(volume, "x")


def test_with_takeover_never_a_volume_of_another_instance_is_refused(
        simulator, start, new_volume):
    volume = new_volume(content="xfs")
    there, here = start(THERE, DETACH_AFTER="never"), start(HERE)
    there.create(volume)
    there.mount(volume)
    there.unmount(volume)
    here.create(volume, takeover="never")
    with pytest.raises(PluginError, match=f"attached to {THERE}, and takeover is never"):
        here.mount(volume)
    assert owner(simulator, volume) == [THERE]
