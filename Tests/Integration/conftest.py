import itertools
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Rig"))
sys.dont_write_bytecode = True

import pytest  # noqa: E402

from daemon import Daemon  # noqa: E402
from simulator import Simulator, instance  # noqa: E402

HERE, THERE, XEN = "i-0aaaaaaaaaaaaaaa1", "i-0bbbbbbbbbbbbbbb2", "i-0ccccccccccccccc3"


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="devices and mounts need root"))


@pytest.fixture(scope="session")
def simulator():
    instances = [instance(HERE), instance(THERE), instance(XEN, mode="xen")]
    with Simulator(instances, latency=dict(api=1, device=30, attached=40, detach=30)) as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(simulator):
    yield
    simulator.clear_faults()


@pytest.fixture(scope="session")
def volume_ids():
    return (f"vol-{number:017x}" for number in itertools.count(0x1A7E00000001))


@pytest.fixture
def new_volume(simulator, volume_ids):
    """Makes a volume in EC2; its id."""
    def make(**fields):
        volume = next(volume_ids)
        simulator.create_volume(volume, **fields)
        return volume
    return make


@pytest.fixture
def start(simulator, tmp_path):
    """Starts daemons; their mounts and their volumes' attachments end with the test."""
    started = []

    def start(instance=HERE, folder=None, wrapper=(), **settings):
        daemon = Daemon(
            simulator.environment(instance), tmp_path / (folder or instance),
            **{"DETACH_AFTER": "0s", "LOG_LEVEL": "debug", **settings})
        daemon.wrapper = [*wrapper]
        started.append(daemon)
        return daemon.start()

    yield start
    for daemon in reversed(started):
        daemon.__exit__()
    detach_everything(simulator)


def detach_everything(simulator):
    """Detaches what a stopped daemon left attached, because an instance can have only a limited
    number of volumes."""
    simulator.clear_faults()
    for volume in simulator.state()["volumes"]:
        for attachment in volume["attachments"]:
            if attachment["state"] in ("attaching", "attached"):
                simulator.ec2().detach_volume(
                    VolumeId=volume["id"], InstanceId=attachment["instance"])
    simulator.wait_until(
        lambda s: not any(volume["attachments"] for volume in s.state()["volumes"]),
        what="the end of all attachments")


@pytest.fixture
def daemon(start):
    return start()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Shows the output of the daemons after a failed test."""
    report = (yield).get_result()
    if report.failed and "tmp_path" in getattr(item, "funcargs", {}):
        for log in item.funcargs["tmp_path"].glob("*/daemon.log"):
            report.sections.append((str(log), log.read_text(errors="replace")[-6000:]))
