"""Provides a simulated EC2 and a daemon on one of its instances, without Docker, for the
benchmarks."""

import contextlib
import ctypes
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests" / "Rig"))

from daemon import Daemon  # noqa: E402
from engine import interrupt_on_signals  # noqa: E402, F401
from simulator import Simulator, instance  # noqa: E402

HERE, ELSEWHERE = "i-0aaaaaaaaaaaaaaa1", "i-0bbbbbbbbbbbbbbb2"
# How long it takes until the daemon is idle: its worker threads wait a while for more work.
IDLE_AFTER = 1
# Milliseconds. Real devices appear after 1 to 3 s; here they take just long enough for the lease to
# be written first, as on EC2.
LATENCY = {"api": 50, "device": 300, "attached": 400, "detach": 100}
NO_LATENCY = dict.fromkeys(LATENCY, 0)
LIBC = ctypes.CDLL(None, use_errno=True)


def milliseconds(nanoseconds=None):
    """The time of the monotonic clock, which the simulator uses too."""
    return (time.monotonic_ns() if nanoseconds is None else nanoseconds) / 1e6


class World:
    def __init__(self, simulator, daemon, folder):
        self.simulator = simulator
        self.daemon = daemon
        self.folder = folder
        self.mountpoint = folder / "floor"
        self.mountpoint.mkdir()
        self.numbers = iter(range(0xBE7C4, 0xFFFFF))

    def new_volume(self, **fields):
        """A volume that the daemon knows, blank unless told otherwise."""
        name = f"vol-{next(self.numbers):017x}"
        self.simulator.create_volume(name, **fields)
        self.daemon.create(name)
        return name

    def formatted(self):
        """A volume that the daemon has formatted."""
        name = self.new_volume()
        self.timed_mount(name)
        self.give_back(name)
        return name

    def unmount(self, name):
        self.daemon.unmount(name, id="bench")

    def give_back(self, name):
        self.unmount(name)
        self.simulator.wait_for_volume(name, "available")

    def delete(self, name):
        """Deletes a volume that is not attached, because its file occupies memory."""
        self.daemon.call("VolumeDriver.Remove", Name=name)
        self.simulator.ec2().delete_volume(VolumeId=name)

    def attach(self, name, owner):
        """Attaches without the daemon; returns the device's node."""
        self.simulator.ec2().attach_volume(VolumeId=name, InstanceId=owner, Device="/dev/sdp")
        self.simulator.wait_until(
            lambda s: all(a["state"] == "attached" and a["node"]
                          for a in s.volume(name)["attachments"]), what="attached")
        return self.simulator.volume(name)["attachments"][0]["node"]

    def detach(self, name):
        self.simulator.ec2().detach_volume(VolumeId=name)
        self.simulator.wait_for_volume(name, "available")

    @contextlib.contextmanager
    def latency(self, **latency):
        self.simulator.latency(**latency)
        try:
            yield
        finally:
            self.simulator.latency(**NO_LATENCY)

    def timed_mount(self, name):
        """(answered, asked) on the monotonic clock, in milliseconds: until the response has
        arrived, not until Python has parsed it."""
        body = json.dumps({"Name": name, "ID": "bench"}).encode()
        request = (b"POST /VolumeDriver.Mount HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(120)
            connection.connect(str(self.daemon.socket))
            asked = milliseconds()
            connection.sendall(request)
            answer = connection.recv(65536)
            answered = milliseconds()
        if b'"Err":""' not in answer:
            raise SystemExit(f"bench: Mount of {name}: {answer.decode()}")
        return answered, asked

    def appeared(self, name):
        """When the volume's node last appeared here, in milliseconds."""
        return [milliseconds(e["ns"]) for e in self.simulator.events()
                if e["event"] == "device-created" and e["volume"] == name
                and e["instance"] == HERE][-1]

    def bare_mount(self, node):
        """How long mount(2) alone takes, in milliseconds."""
        arguments = [os.fsencode(node), os.fsencode(self.mountpoint), b"xfs", 0, b"nouuid"]
        begin = milliseconds()
        result = LIBC.mount(*arguments)
        taken = milliseconds() - begin
        if result != 0:
            raise OSError(ctypes.get_errno(), f"mount {node}")
        if LIBC.umount2(arguments[1], 0) != 0:
            raise OSError(ctypes.get_errno(), f"unmount {self.mountpoint}")
        return taken


@contextlib.contextmanager
def memory_folder():
    """A folder in memory, so that other writers to the disk do not influence the figures, and the
    daemon's overhead is more visible than with a real disk."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "bench", folder], check=True)
        try:
            yield pathlib.Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True, timeout=60)


@contextlib.contextmanager
def running(**settings):
    """A world whose daemon detaches a volume as soon as it is unmounted, unless set otherwise."""
    with contextlib.ExitStack() as cleanup:
        folder = cleanup.enter_context(memory_folder())
        simulator = cleanup.enter_context(Simulator(
            instances=[instance(HERE), instance(ELSEWHERE)], directory=folder / "ec2",
            latency=NO_LATENCY, buckets=False))
        daemon = Daemon(simulator.environment(HERE), folder, **{"DETACH_AFTER": "0s", **settings})
        cleanup.enter_context(daemon)
        yield World(simulator, daemon, folder)
