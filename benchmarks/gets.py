"""Measures the CPU time of a Get on the plugin socket, compared with a Go net/http server that
returns the same JSON."""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import time

import world as worlds
from figures import Figure

FOLDER = pathlib.Path(__file__).resolve().parent
# Docker has one or two.
CONNECTIONS = (1, 2, 16)
ROUNDS = 3
SECONDS = 2


def cpu_seconds(process):
    """The CPU time so far, of all threads, in user space and in the kernel."""
    nanoseconds = 0
    for task in os.listdir(f"/proc/{process}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = pathlib.Path(f"/proc/{process}/task/{task}/schedstat").read_text()
            nanoseconds += int(text.split()[0])
    return nanoseconds / 1e9


class Server:
    """A server under load, and the CPU time per request in each round, in microseconds."""

    def __init__(self, name, process, socket):
        self.name, self.process, self.socket = name, process, socket
        self.cost = {connections: [] for connections in CONNECTIONS}
        self.told = {}

    def load(self, tool, connections, body):
        before = cpu_seconds(self.process)
        run = subprocess.run(
            [tool, self.socket, str(connections), str(SECONDS), body], check=True,
            capture_output=True, text=True, timeout=60)
        answered, median, p99 = map(float, run.stdout.split())
        self.cost[connections].append((cpu_seconds(self.process) - before) / answered * 1e6)
        self.told[connections] = (answered / SECONDS, median, p99)

    def line(self, connections):
        rate, median, p99 = self.told[connections]
        return (f"{self.name:28} {connections:4} {statistics.median(self.cost[connections]):7.2f}"
                f" {min(self.cost[connections]):7.2f} {rate:9.0f} {median:8.0f} {p99:8.0f}")


@contextlib.contextmanager
def go_server(folder, volume):
    """The comparison if Go is installed; otherwise None."""
    if not shutil.which("go"):
        yield None
        return
    program, socket = folder / "get-server", folder / "go.sock"
    described = folder / "volume.json"
    described.write_text(json.dumps(volume))
    subprocess.run(["go", "build", "-o", program, FOLDER / "gets.go"], check=True,
                   timeout=300, env={**os.environ, "GOCACHE": str(folder / "go-cache"),
                                     "GO111MODULE": "off"})
    # One thread for Go, like the daemon: with more threads it needs more CPU time per request.
    process = subprocess.Popen([program, socket, described],
                               env={**os.environ, "GOMAXPROCS": "1"})
    try:
        while not socket.exists():
            if process.poll() is not None:
                raise SystemExit("bench: the Go server does not start")
            time.sleep(0.01)
        yield Server("Go net/http", process.pid, str(socket))
    finally:
        process.kill()
        process.wait()


def measure():
    with worlds.running() as world:
        tool = world.folder / "load"
        subprocess.run(["gcc", "-O2", "-Wall", "-o", tool, FOLDER / "gets_load.c"], check=True)
        name = world.new_volume()
        world.timed_mount(name)
        volume = world.daemon.call("VolumeDriver.Get", Name=name)["Volume"]
        ours = Server("polarity-ecs-ebs-plugin", world.daemon.process.pid,
                      str(world.daemon.socket))
        with go_server(world.folder, volume) as go:
            servers = [server for server in (ours, go) if server]
            for _ in range(ROUNDS):
                for connections in CONNECTIONS:
                    for server in servers:
                        server.load(tool, connections, json.dumps({"Name": name}))
            lines = [server.line(connections)
                     for connections in CONNECTIONS for server in servers]
        world.give_back(name)
    print(f"\nGet on the plugin socket, {ROUNDS} rounds of {SECONDS} s in turn; µs of CPU time a "
          f"request\n{'server':28} conn  median     min  requests/s  p50 µs   p99 µs",
          *lines, sep="\n", flush=True)
    return [figure(ours, go, connections) for connections in CONNECTIONS]


def figure(ours, go, connections):
    name = f"CPU of a Get at {connections} connections, by Go's"
    cost = statistics.median(ours.cost[connections])
    if go is None:
        return Figure(name, None, "x", 0.6, 2, f"{cost:.1f} µs; no go to compare with")
    other = statistics.median(go.cost[connections])
    return Figure(name, cost / other, "x", 0.6, 2, f"{cost:.1f} µs against {other:.1f} µs")


if __name__ == "__main__":
    measure()
