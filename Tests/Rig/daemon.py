"""Runs the daemon as a child process, without Docker, on its own socket, for one simulated
instance.

    with Daemon(simulator.environment("i-0aaaaaaaaaaaaaaa1"), folder) as daemon:
        daemon.call("VolumeDriver.Create", Name="vol-0aaaaaaaaaaaaaaa1")
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import time

import engine

ROOT = pathlib.Path(__file__).resolve().parents[2]


def executable():
    """The built daemon: EBS_PLUGIN, otherwise a release build, otherwise a debug build."""
    if "EBS_PLUGIN" in os.environ:
        return os.environ["EBS_PLUGIN"]
    for configuration in ("release", "debug"):
        path = ROOT / ".build" / configuration / "polarity-ecs-ebs-plugin"
        if path.exists():
            return str(path)
    raise FileNotFoundError("the daemon is not built: make build")


def runner():
    """The program that runs the daemon if this machine cannot run it directly: EBS_PLUGIN_RUNNER,
    such as qemu-aarch64-static."""
    return os.environ.get("EBS_PLUGIN_RUNNER", "").split()


# QEMU's own thread, in addition to the daemon's: it frees memory of the emulation.
RUNNER_THREADS = 1 if runner() else 0


class PluginError(Exception):
    """The Err of a response."""


class Daemon:
    """`folder` contains its socket, mounts, state and log, and is kept. `settings` are added to the
    simulator's."""

    def __init__(self, environment, folder, **settings):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.mount_path = self.folder / "mnt"
        self.mount_path.mkdir(exist_ok=True)
        self.state_path = self.folder / "state"
        self.socket = self.folder / "pl-ebs.sock"
        self.environment = {
            "PATH": os.environ["PATH"], **environment, "SOCK_PATH": str(self.socket),
            "MOUNT_PATH": str(self.mount_path), "STATE_PATH": str(self.state_path), **settings,
        }
        # What is run in the daemon's place, such as a tracer of it.
        self.wrapper = []
        self.process = None

    def start(self):
        with open(self.folder / "daemon.log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, *runner(), executable()], env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, process_group=0)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                self.call("VolumeDriver.Capabilities")
                return self
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the daemon does not answer:\n" + self.log())
            time.sleep(0.002)

    def stop(self, timeout=15):
        """SIGTERM, and the exit code. Mounts stay."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self):
        """kill -9, as a crash."""
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
        finally:
            for mountpoint in reversed(engine.mounts_below(self.folder)):
                subprocess.run(["umount", mountpoint], check=True, timeout=60)

    def request(self, method, path, body=None, timeout=120):
        """(status, body) of one request on a connection of its own."""
        with contextlib.closing(engine.UnixConnection(self.socket, timeout=timeout)) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def call(self, name, **members):
        status, body = self.request("POST", "/" + name, json.dumps(members))
        answer = json.loads(body)
        if status != 200 or answer.get("Err"):
            raise PluginError(answer.get("Err") or f"{status} {body}")
        return answer

    def create(self, volume, **options):
        self.call("VolumeDriver.Create", Name=volume, Opts=options)

    def mount(self, volume, id="test"):
        """The mountpoint."""
        return pathlib.Path(self.call("VolumeDriver.Mount", Name=volume, ID=id)["Mountpoint"])

    def unmount(self, volume, id="test"):
        self.call("VolumeDriver.Unmount", Name=volume, ID=id)

    def health(self):
        return json.loads(self.request("GET", "/health")[1])

    def phase(self, volume):
        return self.call("VolumeDriver.Get", Name=volume)["Volume"]["Status"]["phase"]

    def wait_until(self, condition, timeout=60):
        """Polls `condition` (a function of this daemon) until it returns something true."""
        deadline = time.monotonic() + timeout
        while True:
            result = condition(self)
            if result:
                return result
            assert time.monotonic() < deadline, self.log()[-4000:]
            time.sleep(0.01)

    def log(self):
        return (self.folder / "daemon.log").read_text(errors="replace")

    def threads(self):
        return self.status("Threads") - RUNNER_THREADS

    def status(self, field):
        """A number of /proc/PID/status: VmRSS (kB)."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)[1])

    def is_asleep(self):
        """Whether its only thread sleeps: then it has handled everything before."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return "State:\tS" in text and f"Threads:\t{1 + RUNNER_THREADS}\n" in text

    def start_call(self, name, **members):
        """Sends a call and returns its connection, from which the response can be read, or which
        can be closed."""
        connection = engine.UnixConnection(self.socket, timeout=120)
        connection.request("POST", "/" + name, json.dumps(members))
        return connection


def answer_of(connection):
    """The response to start_call."""
    with contextlib.closing(connection):
        try:
            answer = json.loads(connection.getresponse().read())
        except (http.client.HTTPException, OSError) as error:
            raise PluginError(f"no answer: {error!r}") from error
    if answer.get("Err"):
        raise PluginError(answer["Err"])
    return answer
