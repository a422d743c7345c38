#!/usr/bin/python3
"""Learns which parts of the libraries the daemon uses: `make layout`, as root, takes two minutes.

    layout.py --map FILE --output FILE

The daemon is one executable with all of its libraries, and uses a fifth of them. Where that fifth
is scattered nearly all of them are resident, for the kernel maps a file in pieces of 64 kB. So the
linker is told what is used, and places it side by side.

Runs the release daemon, whose linker map FILE is, through its start, many mounts and the protocol's
other calls, and writes a symbol of each section of the libraries that it entered. The project's own
objects stand together anyway, so the list does not change with them.
"""

import argparse
import bisect
import collections
import os
import pathlib
import re
import sys
import tempfile

sys.dont_write_bytecode = True

import world as worlds  # noqa: E402
from daemon import executable  # noqa: E402
from reached import functions  # noqa: E402

MOUNTS = 300
# The Swift libraries' Swift code is one section of 1.6 MB, which cannot be taken apart.
SECTION_MAX = 100_000
TRACER = pathlib.Path(__file__).with_name("reached.py")
HEADER = """\
# What the daemon uses of the libraries, so that the linker places it side by side: written by
# `make layout`. A name that is no more there does no harm.
"""


def reached():
    """The addresses of the functions that the daemon calls."""
    with tempfile.TemporaryDirectory(prefix="layout-") as folder:
        report = pathlib.Path(folder) / "reached"
        with worlds.running(wrapper=[sys.executable, str(TRACER), str(report)]) as world:
            volume = world.formatted()
            for _ in range(MOUNTS):
                world.timed_mount(volume)
                for call in ("Get", "Path", "List", "Capabilities"):
                    world.daemon.call(f"VolumeDriver.{call}", Name=volume)
                world.give_back(volume)
            world.delete(volume)
        return [int(line, 16) for line in report.read_text().splitlines()]


def library_sections(linker_map):
    """(address, size) of each section with code that came from an archive, by address."""
    pattern = re.compile(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+ {9}\S+\.a\(.*:\(\.text")
    with open(linker_map, encoding="utf-8", errors="replace") as file:
        found = [pattern.match(line) for line in file]
    return sorted((int(match[1], 16), int(match[2], 16)) for match in found if match)


def sections_of(addresses, sections):
    """Which of the sections hold the addresses: {section: [address, ...]}."""
    starts = [start for start, _ in sections]
    held = collections.defaultdict(list)
    for address in addresses:
        section = sections[bisect.bisect_right(starts, address) - 1]
        if section[0] <= address < sum(section):
            held[section].append(address)
    return held


def layout(linker_map):
    """A name for each section that was entered; one that other objects see where there is one, for
    those are unique."""
    names = collections.defaultdict(list)
    for address, name, is_global in functions(executable()):
        names[address].append((not is_global, name))
    sections = library_sections(linker_map)
    every = sections_of(names, sections)
    entered = [section for section in sections_of(reached(), sections) if section[1] < SECTION_MAX]
    chosen = {min(name for address in every[section] for name in names[address])[1]
              for section in entered}
    print(f"layout: {len(chosen)} sections, {sum(size for _, size in entered) / 1e6:.1f} MB")
    return sorted(chosen)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", required=True)
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("layout: needs root, for loop devices and mounts")
    worlds.interrupt_on_signals()
    text = HEADER + "".join(f"{name}\n" for name in layout(options.map))
    pathlib.Path(options.output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
