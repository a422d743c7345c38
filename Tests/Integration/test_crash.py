"""Kills the daemon (kill -9) at each of its steps, with real XFS. A tracer does it, without hooks
in the daemon.

The test plays one life of a volume from Create to Remove, as Docker would, once for each step at
which the daemon is killed; then it restarts the daemon and continues as Docker would. `-s` prints
the table of crash points. With POLARITY_SOAK=1 it covers every step of the life, otherwise a
selection.
"""

import collections
import contextlib
import concurrent.futures
import http.client
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

import engine
from daemon import Daemon, PluginError, runner
from simulator import Simulator, instance

pytestmark = pytest.mark.skipif(
    bool(runner()), reason="the tracer would count the system calls of what runs the daemon")

KILLER = pathlib.Path(engine.__file__).with_name("killer.py")
WORKERS = [f"i-0d00000000000000{number}" for number in range(4)]
BROKEN = (OSError, http.client.HTTPException)


class Refused(Exception):
    """A Mount that was rejected for a good reason."""


class Docker:
    """What dockerd does with one volume, and what it then expects. When dockerd itself repeats an
    unanswered call, the body is empty and the call fails. So when the daemon is back, the user
    calls again, for a Mount with another ID.
    """

    def __init__(self, simulator, daemon, volume, step):
        self.simulator, self.daemon, self.volume = simulator, daemon, volume
        self.report_file = daemon.folder / "steps.json"
        daemon.wrapper = [sys.executable, str(KILLER), str(self.report_file), str(step)]
        self.known = False
        # IDs that were counted for a Mount whose response was never sent.
        self.in_doubt = []
        self.mounted_ids = collections.Counter()
        self.mount_number = None
        self.files = {}
        self.doing = "start"
        self.crashed_while = None
        self.state_then = ""
        self.refusal = None
        self.failure = None

    # One life

    def play(self):
        """From Create to Remove."""
        self.start()
        self.create()
        try:
            self.use()
        except Refused as error:
            self.refusal = str(error)
            self.wait_until_free()
        self.remove()
        self.doing = "end"
        self.end()

    def use(self):
        """A fresh volume, `docker cp` meanwhile, two containers, and the volume a second time."""
        self.mount("a")
        self.write("first")
        self.mount("a")
        self.unmount("a")
        self.mount("b")
        self.write("second")
        self.unmount("a")
        self.unmount("b")
        self.wait_until_free()
        self.mount("c")
        self.write("third")
        self.unmount("c")
        self.wait_until_free()

    def start(self):
        try:
            self.daemon.start()
        except RuntimeError:
            self.recover()

    def create(self):
        if not self.call("Create", Opts={}):
            self.call_again_unless(self.is_known, "Create", Opts={})
        self.known = True
        self.check()

    def mount(self, id):
        try:
            if not self.call("Mount", ID=id):
                id += "-again"
                assert self.call("Mount", ID=id)
        except PluginError as error:
            # A partial file system is not mountable, and what was proved blank once may no longer
            # be.
            if self.crashed_while == "Mount a" and "interrupted" in str(error):
                raise Refused(str(error)) from error
            raise
        # Whoever unmounts uses the ID that was acknowledged.
        self.mounted_ids[id] += 1
        self.check()

    def unmount(self, id):
        id = id if self.mounted_ids[id] else id + "-again"
        # From now on nothing is promised about it.
        self.mounted_ids[id] -= 1
        if not self.call("Unmount", ID=id):
            # dockerd does not repeat it either, so the count stays until the container has been
            # started and stopped again.
            if self.saved_counts().get(id, 0) > self.mounted_ids[id]:
                assert self.call("Unmount", ID=id)
        self.check()
        if self.mounted_ids.total() == 0:
            # The daemon cannot distinguish it from an answered one, and keeps what may be in use.
            for id in self.in_doubt:
                self.daemon.unmount(self.volume, id)
            assert not self.mount_id(), "no Mount is left, and it is mounted"

    def remove(self):
        self.known = False
        if not self.call("Remove"):
            self.call_again_unless(lambda: not self.is_known(), "Remove")
        assert not self.is_known(), "it was removed, and Get knows it"

    def write(self, name):
        """What a container writes and syncs, and can rely on from then on."""
        self.doing = f"write {name}"
        self.files[name] = f"{name} of {self.volume}\n" * 100
        with open(self.mountpoint / name, "x", encoding="ascii") as file:
            file.write(self.files[name])
            file.flush()
            os.fsync(file.fileno())

    def wait_until_free(self, timeout=90):
        """Waits until it is released: nothing attached, no device, no mount."""
        self.doing = "give back"
        deadline = time.monotonic() + timeout
        while self.simulator.volume(self.volume)["state"] != "available":
            if self.daemon.process.poll() is not None:
                self.recover()
            assert time.monotonic() < deadline, f"not given back in {timeout} s"
            time.sleep(0.01)
        self.check()

    def end(self):
        try:
            self.daemon.stop()
        except subprocess.TimeoutExpired as error:
            raise AssertionError("SIGTERM does not end it") from error
        if self.report()["killed"] and self.crashed_while is None:
            self.note_crash()
        assert self.leftovers() == []

    # Calls

    def call(self, name, **members):
        """Whether it was answered. If not, the daemon died and has been restarted."""
        self.doing = " ".join([name, *filter(None, [members.get("ID")])])
        try:
            self.daemon.call(f"VolumeDriver.{name}", Name=self.volume, **members)
            return True
        except BROKEN:
            self.recover()
            return False

    def call_again_unless(self, done, name, **members):
        if not done():
            assert self.call(name, **members)

    def is_known(self):
        try:
            self.daemon.call("VolumeDriver.Get", Name=self.volume)
            return True
        except PluginError:
            return False
        except BROKEN:
            self.recover()
            return self.is_known()

    def recover(self):
        """Restarts it, as dockerd does when a plugin has exited."""
        self.daemon.process.wait(60)
        assert self.crashed_while is None, "it ended without being killed"
        assert self.report()["killed"], "it ended without being killed:\n" + self.daemon.log()
        self.note_crash()
        self.daemon.wrapper = []
        self.daemon.start()
        # By then it has done what it does by itself after a start.
        self.daemon.wait_until(lambda d: d.health()["status"] == "ok" and d.is_asleep())
        self.check()

    def note_crash(self):
        self.crashed_while = self.doing
        if self.doing.startswith("Mount"):
            id = self.doing.split()[1]
            self.in_doubt = [id] if self.saved_counts().get(id, 0) > self.mounted_ids[id] else []
        volume = self.simulator.volume(self.volume)
        attachment = [a["state"] for a in volume["attachments"]] or [volume["state"]]
        on_it = content(self.simulator.backing(self.volume))
        mounted = ["mounted"] if self.mount_id() else []
        self.state_then = ", ".join([*attachment, on_it, *mounted])

    def saved_counts(self):
        file = self.daemon.state_path / "mounts.json"
        mounted = json.loads(file.read_text())["volumes"] if file.exists() else []
        return next((v["counts"] for v in mounted if v["id"] == self.volume), {})

    def report(self):
        return json.loads(self.report_file.read_text())

    # What must hold at any time

    @property
    def mountpoint(self):
        return self.daemon.mount_path / self.volume

    def mount_id(self):
        """The kernel's number of the mount, which is unique for each mount of the volume."""
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            found = [line.split()[0] for line in file if line.split()[4] == str(self.mountpoint)]
        assert len(found) < 2, "it is mounted twice"
        return found[0] if found else None

    def check(self):
        if self.known:
            assert self.is_known(), "Get does not know it: Docker forgets it"
        mounted = self.mount_id()
        if self.mounted_ids.total() == 0:
            self.mount_number = None
            return
        assert mounted, "a Mount was acknowledged, and it is not mounted"
        self.mount_number = self.mount_number or mounted
        assert mounted == self.mount_number, "it was unmounted and mounted again while in use"
        for name, text in self.files.items():
            found = (self.mountpoint / name).read_text(encoding="ascii")
            assert found == text, f"{name} is not as it was written"

    def leftovers(self):
        volume = self.simulator.volume(self.volume)
        left = [f"attachment {attachment}" for attachment in volume["attachments"]]
        left += [f"mount {mountpoint}" for mountpoint in engine.mounts_below(self.daemon.folder)]
        left += [f"folder {path}" for path in self.daemon.mount_path.glob("vol-*")]
        for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
            # Those of others come and go.
            with contextlib.suppress(OSError):
                if path.read_text().strip() == str(self.simulator.backing(self.volume)):
                    left.append(f"loop device {path}")
        return left


def content(file):
    found = subprocess.run(["blkid", "-p", "-s", "TYPE", "-o", "value", file],
                           capture_output=True, text=True, timeout=60).stdout.strip()
    return found or "no file system"


@pytest.fixture(scope="module")
def crash_simulator():
    latency = dict(api=1, device=10, attached=20, detach=10)
    with Simulator([instance(worker) for worker in WORKERS], latency=latency,
                   buckets=False) as running:
        yield running


@pytest.fixture
def play(crash_simulator, tmp_path):
    """Plays a life whose daemon is killed at a step; the Docker that was played."""
    numbers = itertools.count(0xC0A500000001)

    def play(step, worker=WORKERS[0]):
        volume = f"vol-{next(numbers):017x}"
        crash_simulator.create_volume(volume)
        daemon = Daemon(crash_simulator.environment(worker), tmp_path / volume,
                        DETACH_AFTER="0s", LOG_LEVEL="debug")
        docker = Docker(crash_simulator, daemon, volume, step)
        try:
            docker.play()
        except Exception as error:  # Becomes a row of the table; the other lives continue.
            docker.failure = error
        finally:
            daemon.__exit__()
        return docker
    return play


def selected(steps):
    """The numbers of the steps to kill at: all but repeated steps of the same kind."""
    if os.environ.get("POLARITY_SOAK"):
        return list(range(1, len(steps) + 1))
    numbers = collections.defaultdict(list)
    for number, label in enumerate(steps, 1):
        kind = "io" if "submit" in label else "mkfs" if "pwrite" in label else "all"
        numbers[kind].append(number)
    return sorted([*numbers["all"], *numbers["mkfs"][::12], *numbers["io"][::11]])


def test_a_daemon_killed_at_any_of_its_steps_loses_and_leaks_nothing(play):
    undisturbed = play(0)
    assert undisturbed.failure is None, undisturbed.failure
    steps = selected(undisturbed.report()["steps"])
    lives = queue_of_lives(play, steps)
    rows = [(step, life.report()["steps"][-1], life) for step, life in lives
            if life.report()["killed"]]
    print(f"\n{len(rows)} crash points of {len(undisturbed.report()['steps'])} steps")
    for step, label, life in rows:
        print(f"{step:4}  {label:62} {life.crashed_while or '-':12} {life.state_then:36} "
              f"{outcome(life)}")
    assert len({step for step, _, _ in rows}) >= 25
    failed = [f"{step} {label}: {life.failure!r}" for step, label, life in rows if life.failure]
    assert not failed, "\n".join(failed)


def outcome(life):
    if life.failure:
        return f"FAILED {life.failure}".split("\n")[0]
    if life.in_doubt:
        return "ok: kept until the unanswered Mount's Unmount"
    return f"refused: {life.refusal}" if life.refusal else "ok"


def queue_of_lives(play, steps):
    """(step, life) of each step, as many at a time as there are simulated instances."""
    free = list(WORKERS)

    def one(step):
        worker = free.pop()
        try:
            return step, play(step, worker)
        finally:
            free.append(worker)

    with concurrent.futures.ThreadPoolExecutor(len(WORKERS)) as pool:
        return list(pool.map(one, steps))
