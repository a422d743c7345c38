#!/usr/bin/python3
"""Shows the plugin at work: `make demo`.

Starts a private Docker Engine with the plugin, installed by the commands in the README, and a
simulated EC2 whose volumes are real block devices. Leaves nothing behind, even if it is interrupted
or fails.
"""

import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests" / "Rig"))
sys.dont_write_bytecode = True

import engine  # noqa: E402
import host as rig  # noqa: E402
from simulator import volume  # noqa: E402

FRESH = "vol-0f4e500000000000a"
ELSEWHERE = "vol-0e15e00000000000b"
EXT4 = "vol-0e474000000000000"
OTHER_ZONE = "vol-0b20000000000000d"
VOLUMES = [
    volume(FRESH),
    volume(ELSEWHERE, content="xfs",
           attachedTo={"instance": rig.ELSEWHERE, "device": "/dev/sdf"}),
    volume(EXT4, content="ext4"),
    volume(OTHER_ZONE, availabilityZone="eu-central-1b"),
]
BOLD, FAINT = 1, 2
# Milliseconds, similar to those of EC2.
LATENCY = {"api": 40, "device": 600, "attached": 1500, "detach": 1200}
STEPS = [("attach_ms", "attach accepted"), ("device_ms", "device here"), ("probe_ms", "probed"),
         ("format_ms", "formatted"), ("mount_ms", "mounted")]


class Demo:
    def __init__(self, host):
        self.host = host
        self.told = 0

    def section(self, text):
        print("\n" + styled(text, BOLD), flush=True)

    def docker(self, *arguments, fails=False):
        """Runs docker; prints the command, its output, and the timelines of its mounts."""
        print("$ docker " + " ".join(quoted(word) for word in arguments), flush=True)
        result = self.host.engine.docker(*arguments, check=False)
        for line in (result.stdout + result.stderr).splitlines():
            print(f"  {line}")
        if (result.returncode != 0) != fails:
            raise SystemExit(f"demo: docker exited with {result.returncode}")
        self.tell_timelines()
        return result.stdout

    def run(self, name, script):
        return self.docker("run", "--rm", "--network", "none", "-v", f"{name}:/data", "box",
                           "sh", "-c", script)

    def tell_timelines(self):
        timelines = self.host.timelines()
        for timeline in timelines[self.told:]:
            print("  " + styled(timeline_text(timeline), FAINT))
        self.told = len(timelines)

    def show(self):
        self.section("A new volume: attached, formatted and mounted by the first container")
        self.docker("volume", "create", "-d", rig.PLUGIN, FRESH)
        self.run(FRESH, "grep ' /data ' /proc/mounts; echo 'hello, EBS' > /data/file")
        self.section("A second container reads what the first one wrote")
        expect(self.run(FRESH, "cat /data/file"), "hello, EBS")

        self.section(f"A volume attached to another instance, {rig.ELSEWHERE}, is taken from it")
        self.docker("volume", "create", "-d", rig.PLUGIN, ELSEWHERE)
        self.run(ELSEWHERE, "echo taken > /data/file; cat /data/file")

        self.section("A volume that carries an ext4 file system is mounted as it is, not formatted")
        self.docker("volume", "create", "-d", rig.PLUGIN, EXT4)
        expect(self.run(EXT4, "grep ' /data ' /proc/mounts; ls /data"), "ext4")

        self.section("A volume in another zone: the error says what to do")
        self.docker("volume", "create", "-d", rig.PLUGIN, OTHER_ZONE, fails=True)

        self.section("No data is deleted: the plugin forgets the volumes, and detaches them")
        self.docker("volume", "rm", FRESH, ELSEWHERE, EXT4)
        for name in (FRESH, ELSEWHERE, EXT4):
            self.host.simulator.wait_for_volume(name, "available", timeout=60)
            print(f"  {name} is available")


def styled(text, code):
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


def timeline_text(timeline):
    """The daemon logs the duration of each step; this shows when each one ended."""
    passed, steps = 0.0, []
    for field, step in STEPS:
        if field in timeline:
            passed += timeline[field]
            steps.append(f"{step} {passed:.0f}")
    return "; ".join([*steps, f"answered {timeline['total_ms']:.0f} ms"])


def quoted(word):
    return f"'{word}'" if " " in word and "'" not in word else f'"{word}"' if " " in word else word


def expect(output, text):
    if text not in output:
        raise SystemExit(f"demo: {text!r} is missing from the output")


def main():
    reason = rig.why_unavailable()
    if reason:
        raise SystemExit(f"demo: cannot run here: {reason}")
    engine.interrupt_on_signals()
    begin = time.monotonic()
    host = rig.Host(volumes=VOLUMES, settings={"DETACH_AFTER": "2s"}, latency=LATENCY)
    with host:
        demo = Demo(host)
        demo.section("The plugin is installed as in the README, and uses the simulated EC2")
        host.install(echo=lambda command: print(f"$ {command}", flush=True))
        demo.show()
        print("\nCleaning up ...", flush=True)
    left = host.leftovers()
    if left:
        raise SystemExit("demo: left behind: " + ", ".join(left))
    print(f"Nothing is left behind. It took {time.monotonic() - begin:.0f} s.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\ndemo: interrupted; everything was cleaned up") from None
