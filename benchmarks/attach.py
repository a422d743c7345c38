"""Measures the time from the appearance of a volume's device to the answered Mount, compared with a
bare mount(2)."""

import os
import statistics

import world as worlds
from figures import Figure, p90
from world import ELSEWHERE, HERE, LATENCY, NO_LATENCY, milliseconds

ROUNDS = 15


class Case:
    """The rounds of one case, in milliseconds. The floor is measured before and after each
    Mount."""

    def __init__(self, name):
        self.name = name
        self.taken, self.before, self.after, self.calls = [], [], [], []

    @property
    def ratio(self):
        return statistics.median(self.taken) / statistics.median(self.before + self.after)

    @property
    def noise(self):
        """The ratio of the floor's second half to its first: 1 if nothing else took time."""
        return statistics.median(self.after) / statistics.median(self.before)

    def line(self):
        columns = [f"{statistics.median(values):7.2f} {p90(values):7.2f}"
                   for values in (self.taken, self.before + self.after)]
        return (f"{self.name:24} {'  '.join(columns)}  {self.ratio:5.2f}  {self.noise:5.2f}  "
                f"{statistics.median(self.calls):3.0f}")


HEADER = (f"{'case':24} {'Mount':>7} {'p90':>7}  {'floor':>7} {'p90':>7}  {'ratio':>5}  "
          f"{'noise':>5}  EC2 calls waited for")


def floor(world, name):
    """mount(2) alone, of a volume that was just attached here without the daemon."""
    taken = world.bare_mount(world.attach(name, HERE))
    world.detach(name)
    return taken


def fresh_floor(world):
    """mkfs.xfs and mount(2) of a blank volume."""
    name = world.new_volume()
    node = world.attach(name, HERE)
    begin = milliseconds()
    child = os.posix_spawn("/sbin/mkfs.xfs", ["mkfs.xfs", "-q", node], {})
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"bench: mkfs.xfs {node} failed")
    taken = milliseconds() - begin + world.bare_mount(node)
    world.detach(name)
    world.delete(name)
    return taken


def mount(world, case, name, latency, asked_here=False):
    """One Mount, timed from the device's appearance or, if the device is here, from the request."""
    with world.latency(**latency):
        world.simulator.reset_counters()
        answered, asked = world.timed_mount(name)
        calls = world.simulator.counters()["calls"]
        # The lease is written while the device is awaited, if there is one to wait for.
        waited_for = [name for name in calls if asked_here or name != "CreateTags"]
        case.calls.append(sum(calls[name] for name in waited_for))
    case.taken.append(answered - (asked if asked_here else world.appeared(name)))


def formatted(world, name, latency=LATENCY):
    case = Case(name)
    volume = world.formatted()
    for _ in range(ROUNDS):
        case.before.append(floor(world, volume))
        mount(world, case, volume, latency)
        world.give_back(volume)
        case.after.append(floor(world, volume))
    return case


def fresh(world):
    case = Case("fresh: formatted too")
    for _ in range(ROUNDS):
        case.before.append(fresh_floor(world))
        volume = world.new_volume()
        mount(world, case, volume, LATENCY)
        world.give_back(volume)
        world.delete(volume)
        case.after.append(fresh_floor(world))
    return case


def takeover(world):
    case = Case("attached elsewhere")
    volume = world.formatted()
    for _ in range(ROUNDS):
        case.before.append(floor(world, volume))
        world.attach(volume, ELSEWHERE)
        mount(world, case, volume, LATENCY)
        world.give_back(volume)
        case.after.append(floor(world, volume))
    return case


def here(world):
    """Attached here by somebody else: the daemon asks EC2 who attached it."""
    case = Case("here, whose is asked")
    volume = world.formatted()
    for _ in range(ROUNDS):
        node = world.attach(volume, HERE)
        case.before.append(world.bare_mount(node))
        mount(world, case, volume, NO_LATENCY, asked_here=True)
        # The daemon leaves attached what it has not attached itself.
        world.unmount(volume)
        case.after.append(world.bare_mount(node))
        world.detach(volume)
    return case


def lingering(world):
    """Mounted again before its lease is dropped, as Docker does with a new container's volume."""
    case = Case("here, lease kept")
    volume = world.new_volume()
    world.timed_mount(volume)
    node = world.simulator.volume(volume)["attachments"][0]["node"]
    for _ in range(ROUNDS):
        world.unmount(volume)
        case.before.append(world.bare_mount(node))
        mount(world, case, volume, LATENCY, asked_here=True)
        world.unmount(volume)
        case.after.append(world.bare_mount(node))
        world.timed_mount(volume)
    world.unmount(volume)
    return case


def measure():
    """Prints every case, and returns the figures that have budgets."""
    with worlds.running() as world:
        free = formatted(world, "free, formatted")
        cases = [free, formatted(world, "the same, EC2 in 0 ms", NO_LATENCY), fresh(world),
                 takeover(world), here(world)]
    with worlds.running(DETACH_AFTER="never") as world:
        kept = lingering(world)
        cases.append(kept)
    print(f"\nFrom the device's appearance (where it is here: from the question) to the answered "
          f"Mount, in ms,\nbeside mount(2) alone of the same volume; medians of {ROUNDS}. An EC2 "
          f"call takes {LATENCY['api']} ms, a device comes {LATENCY['device']} ms\nafter it. "
          "noise: the floor after by the floor before.", HEADER,
          *(case.line() for case in cases), sep="\n", flush=True)
    noise = f"noise of the floor {free.noise:.2f}"
    return [
        Figure("device -> Mount answered, by bare mount(2)", free.ratio, "x", 1.5, 2, noise),
        Figure("EC2 calls of a Mount, free volume", max(free.calls), "", 1),
        Figure("EC2 calls of a Mount, volume here", max(kept.calls), "", 0),
    ]


if __name__ == "__main__":
    measure()
