"""Measures many mounts: connections, memory and threads over a thousand, and eight at once."""

import concurrent.futures
import statistics
import time

import world as worlds
from figures import Figure
from world import LATENCY

TOGETHER = 8
ROUNDS = 5
# The numbers of the mounts after which memory is measured.
SOME, MANY = 100, 1000


def cycle(world, volume, count):
    for _ in range(count):
        world.timed_mount(volume)
        world.give_back(volume)


def memory(world):
    """The resident megabytes, and how many of them are not backed by the program's file."""
    time.sleep(worlds.IDLE_AFTER)
    return world.daemon.status("VmRSS") / 1000, world.daemon.status("RssAnon") / 1000


def cycles():
    with worlds.running() as world:
        volume = world.formatted()
        world.simulator.reset_counters()
        cycle(world, volume, SOME)
        handshakes = world.simulator.counters()["handshakes"]
        some = memory(world)
        cycle(world, volume, MANY - SOME)
        many = memory(world)
        threads = world.daemon.status("Threads")
    print(f"\nafter {SOME} mounts {some[0]:.1f} MB resident, {some[1]:.1f} of it anonymous; after "
          f"{MANY} {many[0]:.1f} and {many[1]:.1f}", flush=True)
    return [
        Figure(f"new TLS connections in {SOME} mounts", handshakes, "", 1),
        Figure(f"anonymous memory after {MANY} mounts", many[1], "MB", 2, 1),
        Figure(f"its growth from mount {SOME} to {MANY}", many[1] - some[1], "MB", 0, 1),
        Figure(f"resident after {MANY} mounts", many[0], "MB", 14, 1),
        Figure("threads when idle, after mounts", threads, "", 1),
    ]


def together():
    """One volume, and the last of eight, from the request to the response."""
    with worlds.running() as world:
        names = [world.formatted() for _ in range(TOGETHER)]
        singles, lasts = [], []
        for _ in range(ROUNDS):
            with world.latency(**LATENCY):
                answered, asked = world.timed_mount(names[0])
            singles.append(answered - asked)
            world.give_back(names[0])
            with world.latency(**LATENCY), concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
                times = list(pool.map(world.timed_mount, names))
            lasts.append(max(t[0] for t in times) - min(t[1] for t in times))
            for name in names:
                world.unmount(name)
            for name in names:
                world.simulator.wait_for_volume(name, "available")
    one, all_of_them = statistics.median(singles), statistics.median(lasts)
    return [Figure(f"{TOGETHER} volumes at once, by one", all_of_them / one, "x", 1.3, 2,
                   f"{all_of_them:.0f} ms against {one:.0f} ms, {TOGETHER} of {TOGETHER}")]


def measure():
    return [*together(), *cycles()]


if __name__ == "__main__":
    from figures import table
    print(*table(measure()), sep="\n")
