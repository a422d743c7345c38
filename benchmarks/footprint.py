"""Measures what the daemon costs while nothing is mounted: start, idling, size."""

import contextlib
import os
import pathlib
import socket
import statistics
import subprocess
import tempfile
import time

import world as worlds
from daemon import executable
from figures import Figure
from world import ROOT, milliseconds

STARTS = 20
IDLE_SECONDS = 60
REQUEST = (b"POST /VolumeDriver.Capabilities HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
           b"Content-Length: 0\r\n\r\n")


def answer_of(path):
    """The first bytes of a response on the socket, as soon as somebody listens."""
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                continue
            connection.sendall(REQUEST)
            return connection.recv(4096)


def start_once(folder, number):
    """The milliseconds from exec to the response, and the megabytes at that time: anonymous ones,
    and all that are resident."""
    path = str(folder / f"{number}.sock")
    environment = {"SOCK_PATH": path, "MOUNT_PATH": str(folder),
                   "STATE_PATH": str(folder / "state"), "REGION": "us-east-1",
                   "AVAILABILITY_ZONE": "us-east-1a", "INSTANCE_ID": "i-0123456789abcdef0",
                   "AWS_EC2_METADATA_DISABLED": "true", "LOG_LEVEL": "critical"}
    begin = milliseconds()
    process = os.posix_spawn(executable(), [executable()], environment)
    try:
        assert answer_of(path).startswith(b"HTTP/1.1 200")
        taken = milliseconds() - begin
        status = pathlib.Path(f"/proc/{process}/status").read_text()
        anonymous, resident = (
            int(status.split(f"{name}:")[1].split()[0]) / 1000 for name in ("RssAnon", "VmRSS"))
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
    return taken, anonymous, resident


def start():
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        starts = [start_once(pathlib.Path(folder), number) for number in range(STARTS)]
    taken, anonymous, resident = (sorted(values) for values in zip(*starts))
    return [
        Figure("exec -> socket answers", statistics.median(taken), "ms", 3, 1,
               f"median of {STARTS}, the fastest {taken[0]:.1f} ms"),
        Figure("anonymous memory at start", statistics.median(anonymous), "MB", 1, 1),
        Figure("resident at start", statistics.median(resident), "MB", 14, 1),
    ]


@contextlib.contextmanager
def idling():
    """An idle daemon with one mounted volume; yields a function that returns how often it has woken
    up. It idles while other figures are measured."""
    with worlds.running() as world:
        volume = world.formatted()
        world.timed_mount(volume)
        time.sleep(worlds.IDLE_AFTER)
        process = world.daemon.process.pid
        begin, before = time.monotonic(), wakeups(process)

        def finish():
            left = begin + IDLE_SECONDS - time.monotonic()
            if left > 0:
                time.sleep(left)
            woken = wakeups(process) - before
            seconds = time.monotonic() - begin
            world.give_back(volume)
            return [Figure(f"wake-ups in {IDLE_SECONDS} s of idling", woken, "", 0, 0,
                           f"watched for {seconds:.0f} s, one volume mounted")]

        yield finish


def wakeups(process):
    """How often its threads have gone to sleep so far."""
    return sum(
        int(pathlib.Path(f"/proc/{process}/task/{task}/status").read_text()
            .split("\nvoluntary_ctxt_switches:")[1].split()[0])
        for task in os.listdir(f"/proc/{process}/task"))


def sizes():
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stripped = pathlib.Path(folder) / "daemon"
        subprocess.run(["strip", "-o", stripped, executable()], check=True)
        figures = [Figure("daemon, stripped", stripped.stat().st_size / 1e6, "MB", 15, 2)]
    tarballs = [path for path in ROOT.glob("polarity-ecs-ebs-plugin.*.tar.gz")]
    size = max((path.stat().st_size / 1e6 for path in tarballs), default=None)
    note = tarballs[0].name if tarballs else "no tarball here: make tar"
    return [*figures, Figure("tarball", size, "MB", 12, 2, note)]


def measure():
    return [*start(), *sizes()]


if __name__ == "__main__":
    from figures import table
    with idling() as finish:
        print(*table([*measure(), *finish()]), sep="\n")
