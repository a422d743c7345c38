import os
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Rig"))

from simulator import Simulator, executable, instance, volume  # noqa: E402

HERE = "i-0aaaaaaaaaaaaaaa1"
THERE = "i-0aaaaaaaaaaaaaaa2"
XEN = "i-0aaaaaaaaaaaaaaa3"
FREE = "vol-0aaaaaaaaaaaaaaa1"
SMALL = 16  # MiB, for volumes whose content does not matter


def loops(of):
    """The loop devices whose backing file is below a directory."""
    listed = subprocess.run(["losetup", "-l", "-n", "-O", "NAME,BACK-FILE"], check=True,
                            capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines() if str(of) in line]


def await_no_loops(of, timeout=60):
    """udev may keep a loop device open for a moment longer than the simulator."""
    deadline = time.monotonic() + timeout
    while loops(of):
        assert time.monotonic() < deadline, loops(of)
        time.sleep(0.01)


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="loop devices and nodes need root"))


@pytest.fixture(scope="session", autouse=True)
def built():
    if os.geteuid() == 0:
        executable()


@pytest.fixture
def start(tmp_path):
    """Starts simulators, and checks that each leaves nothing behind."""
    started = []

    def start(instances=None, volumes=None, **configuration):
        if instances is None:
            instances = [instance(HERE), instance(THERE), instance(XEN, mode="xen")]
        if volumes is None:
            volumes = [volume(FREE, sizeMiB=SMALL)]
        simulator = Simulator(instances, volumes, directory=tmp_path / str(len(started)),
                              **configuration)
        started.append(simulator)
        return simulator.start()

    yield start
    for simulator in started:
        assert simulator.stop() in (0, None), simulator.output()
        await_no_loops(simulator.directory)
        for described in simulator.configuration["instances"]:
            assert not os.path.exists(described["devPath"])
            assert not os.path.exists(described["sysPath"])


@pytest.fixture
def simulator(start):
    return start()


@pytest.fixture
def ec2(simulator):
    return simulator.ec2()


@pytest.fixture
def mounted(tmp_path):
    """Mounts, and unmounts at the end what is still mounted."""
    places = []

    def mount(node, *options):
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        subprocess.run(["mount", *options, node, place], check=True, capture_output=True)
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", place], capture_output=True)


def attach(simulator, id, to, device="/dev/sdf"):
    """Attaches, and returns the path of the node once it exists."""
    simulator.ec2().attach_volume(VolumeId=id, InstanceId=to, Device=device)

    def node(s):
        return next((a["node"] for a in s.volume(id)["attachments"] if a["instance"] == to), None)

    return simulator.wait_until(node, what=f"the device of {id}")
