#!/usr/bin/python3
"""Measures the daemon against its budgets: `make bench`, as root. With names of subjects (attach,
mounts, gets, footprint), measures only these.

The daemon runs directly, without Docker, against the simulator, whose volumes are loop devices with
real XFS in memory. Ratios compare measurements that were taken alternately. Prints a table of the
figures with their budgets, and fails for none of them, because other work on the machine makes
every figure worse.
"""

import contextlib
import os
import pathlib
import re
import sys
import time

sys.dont_write_bytecode = True

import attach  # noqa: E402
import footprint  # noqa: E402
import gets  # noqa: E402
import mounts  # noqa: E402
from figures import table  # noqa: E402
from world import interrupt_on_signals  # noqa: E402

SUBJECTS = {"attach": attach, "mounts": mounts, "gets": gets, "footprint": footprint}


def waited():
    """For how many seconds so far some program waited for a CPU; None if the kernel does not count
    this."""
    try:
        text = pathlib.Path("/proc/pressure/cpu").read_text()
    except OSError:
        return None
    return int(re.search(r"^some .*total=(\d+)", text, re.MULTILINE)[1]) / 1e6


def surroundings(seconds, before):
    """How busy the machine was: on a busy machine, figures are only guesses."""
    if before is None:
        return f"in {seconds:.0f} s"
    share = (waited() - before) / seconds
    text = f"in {seconds:.0f} s; for {share:.0%} of them some program waited for a CPU"
    return text + (": the machine is too busy for these figures" if share > 0.4 else "")


def main():
    names = sys.argv[1:] or list(SUBJECTS)
    if unknown := [name for name in names if name not in SUBJECTS]:
        raise SystemExit(f"bench: no subject {unknown[0]}; there are {', '.join(SUBJECTS)}")
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, for loop devices and mounts")
    interrupt_on_signals()
    begin, before = time.monotonic(), waited()
    figures = []
    with contextlib.ExitStack() as cleanup:
        asleep = cleanup.enter_context(footprint.idling()) if "footprint" in names else list
        for name in names:
            print(f"bench: {name}", file=sys.stderr, flush=True)
            figures += SUBJECTS[name].measure()
        figures += asleep()
    print("", *table(figures), "", surroundings(time.monotonic() - begin, before), sep="\n")


if __name__ == "__main__":
    main()
