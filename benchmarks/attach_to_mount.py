#!/usr/bin/python3
"""From a volume's device to an answered Mount: `make bench`, as root.

The daemon runs directly, without Docker, against the simulator, whose volumes are loop devices with
real XFS. Each case is beside its floor, measured in the same run on the same volume: a bare
mount(2); for a fresh volume mkfs.xfs before it, on another fresh volume. Prints medians and ratios,
and judges nothing.
"""

import concurrent.futures
import contextlib
import ctypes
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests" / "Rig"))
sys.dont_write_bytecode = True

import engine  # noqa: E402
from daemon import Daemon  # noqa: E402
from simulator import Simulator, instance  # noqa: E402

HERE, ELSEWHERE = "i-0aaaaaaaaaaaaaaa1", "i-0bbbbbbbbbbbbbbb2"
ROUNDS = 15
CYCLES = 100
TOGETHER = 8
# Milliseconds, of EC2's size, for the case where waiting together is the point.
LATENCY = {"api": 40, "device": 300, "attached": 400, "detach": 200}
NO_LATENCY = dict.fromkeys(LATENCY, 0)
LIBC = ctypes.CDLL(None, use_errno=True)


def milliseconds(nanoseconds=None):
    return (time.monotonic_ns() if nanoseconds is None else nanoseconds) / 1e6


class Bench:
    def __init__(self, simulator, daemon, folder):
        self.simulator = simulator
        self.daemon = daemon
        self.mountpoint = folder / "floor"
        self.mountpoint.mkdir()
        self.rows = []
        self.numbers = iter(range(0xBE7C4, 0xFFFFF))

    def mount(self, name):
        """(answered, asked) by the monotonic clock, in milliseconds."""
        asked = milliseconds()
        self.daemon.mount(name)
        return milliseconds(), asked

    def give_back(self, name):
        self.daemon.unmount(name)
        self.simulator.wait_for_volume(name, "available")

    def new_volume(self, **fields):
        name = f"vol-{next(self.numbers):017x}"
        self.simulator.create_volume(name, **fields)
        self.daemon.create(name)
        return name

    def appeared(self, name):
        """When the volume's node appeared here last, in milliseconds."""
        return [milliseconds(e["ns"]) for e in self.simulator.events()
                if e["event"] == "device-created" and e["volume"] == name
                and e["instance"] == HERE][-1]

    def bare_mount(self, node):
        """mount(2) alone of a volume that lies ready here."""
        arguments = [os.fsencode(node), os.fsencode(self.mountpoint), b"xfs", 0, b"nouuid"]
        begin = milliseconds()
        result = LIBC.mount(*arguments)
        taken = milliseconds() - begin
        if result != 0:
            raise OSError(ctypes.get_errno(), f"mount {node}")
        LIBC.umount2(arguments[1], 0)
        return taken

    def floor(self, name, fresh=False):
        """The floor on the same volume, attached here without the daemon."""
        self.attached_to(name, HERE)
        node = self.simulator.volume(name)["attachments"][0]["node"]
        made = 0.0
        if fresh:
            begin = milliseconds()
            child = os.posix_spawn("/sbin/mkfs.xfs", ["mkfs.xfs", "-q", node], {})
            if os.waitpid(child, 0)[1] != 0:
                raise SystemExit(f"bench: mkfs.xfs {node} failed")
            made = milliseconds() - begin
        taken = self.bare_mount(node)
        self.simulator.ec2().detach_volume(VolumeId=name)
        self.simulator.wait_for_volume(name, "available")
        return made + taken

    def measure(self, case, prepare, fresh=False, attached=False):
        """One row: rounds of Mount, each with its floor."""
        taken, floors, calls = [], [], []
        for _ in range(ROUNDS):
            name = prepare()
            self.simulator.reset_counters()
            answered, asked = self.mount(name)
            calls.append(sum(self.simulator.counters()["calls"].values()))
            taken.append(answered - (asked if attached else self.appeared(name)))
            self.give_back(name)
            floors.append(self.floor(prepare() if fresh else name, fresh))
        self.rows.append((case, taken, floors, calls))

    def formatted(self):
        """A volume that the daemon formatted before."""
        name = self.new_volume()
        self.daemon.mount(name)
        self.give_back(name)
        return name

    def run(self):
        at_start = self.footprint()
        self.measure("fresh", self.new_volume, fresh=True)
        kept = self.formatted()
        self.measure("formatted", lambda: kept)
        self.measure("takeover", lambda: self.attached_to(kept, ELSEWHERE))
        self.measure("attached here", lambda: self.attached_to(kept, HERE), attached=True)
        together = self.measure_together()
        connections = self.cycles(kept)
        self.print_table()
        one, eight = together
        print(f"""
asked -> answered, with EC2 answering in {LATENCY['api']} ms and devices after {LATENCY['device']} ms:
one volume {one:.0f} ms, {TOGETHER} of {TOGETHER} at once {eight:.0f} ms, {eight / one:.2f} x
new TLS connections in {CYCLES} mounts: {connections}
at start: {at_start}
at the end: {self.footprint()}""")

    def footprint(self):
        status = self.daemon.status
        return (f"{status('VmRSS')} kB resident ({status('RssAnon')} kB of it not the program's "
                f"file), {status('Threads')} threads")

    def attached_to(self, name, owner):
        self.simulator.ec2().attach_volume(VolumeId=name, InstanceId=owner, Device="/dev/sdp")
        self.simulator.wait_until(
            lambda s: all(a["state"] == "attached" and a["node"]
                          for a in s.volume(name)["attachments"]), what="attached")
        return name

    def measure_together(self):
        """Medians of asked -> answered, for one volume and for the last of eight, in ms."""
        names = [self.formatted() for _ in range(TOGETHER)]
        self.simulator.latency(**LATENCY)
        singles, lasts = [], []
        for _ in range(3):
            answered, asked = self.mount(names[0])
            singles.append(answered - asked)
            self.give_back(names[0])
            with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
                times = list(pool.map(self.mount, names))
            lasts.append(max(t[0] for t in times) - min(t[1] for t in times))
            for name in names:
                self.daemon.unmount(name)
            for name in names:
                self.simulator.wait_for_volume(name, "available")
        self.simulator.latency(**NO_LATENCY)
        return statistics.median(singles), statistics.median(lasts)

    def cycles(self, name):
        self.simulator.reset_counters()
        for _ in range(CYCLES):
            self.daemon.mount(name)
            self.give_back(name)
        return self.simulator.counters()["handshakes"]

    def print_table(self):
        print(f"medians of {ROUNDS}, in ms; from the device's appearance to the answer (attached "
              "here: from the question)")
        print(f"{'case':14} {'Mount':>8} {'floor':>8} {'ratio':>6} {'max':>8}  EC2 calls")
        for case, taken, floors, calls in self.rows:
            median, floor = statistics.median(taken), statistics.median(floors)
            print(f"{case:14} {median:8.2f} {floor:8.2f} {median / floor:6.2f} {max(taken):8.2f}  "
                  f"{statistics.median(calls):.0f}")


def main():
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, for loop devices and mounts")
    engine.interrupt_on_signals()
    with contextlib.ExitStack() as cleanup:
        folder = pathlib.Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        simulator = cleanup.enter_context(Simulator(
            instances=[instance(HERE), instance(ELSEWHERE)], latency=NO_LATENCY, buckets=False))
        daemon = cleanup.enter_context(
            Daemon(simulator.environment(HERE), folder, DETACH_AFTER="0s"))
        Bench(simulator, daemon, folder).run()


if __name__ == "__main__":
    main()
