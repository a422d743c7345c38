"""Provides an EC2 instance for the demo and the end-to-end tests: the simulator, a private Docker
Engine, and the plugin, installed from its tarball by the commands in the README.

    with Host(volumes=[volume("vol-0aaaaaaaaaaaaaaa1")]) as host:
        host.run("vol-0aaaaaaaaaaaaaaa1", "echo hello > /data/file")

The simulator makes this instance's nodes in the real /dev, which the plugin sees; its sysfs tree,
its CA and the volumes' sparse files lie in a folder in /dev/shm, for the plugin sees that too.
"""

import contextlib
import glob
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile

import engine
from simulator import ROOT, Simulator, instance

PLUGIN = "polarity-ecs-ebs-plugin"
HERE = "i-0aaaaaaaaaaaaaaa1"
ELSEWHERE = "i-0bbbbbbbbbbbbbbb2"
SHARED = "/dev/shm"
PREFIX = "polarity-host-"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
TARBALL = ROOT / f"{PLUGIN}.{ARCHITECTURE}.tar.gz"


def why_unavailable():
    """Why no such host can run here; None if it can."""
    if not TARBALL.exists():
        return f"no {TARBALL.name} (make tar)"
    return engine.why_unavailable()


def readme_commands(containing):
    """The lines of the README's shell block that contains `containing`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if containing in block:
            return [line for line in block.splitlines() if line and not line.startswith("#")]
    raise LookupError(f"the README has no shell block with {containing!r}")


CAP_SYS_RESOURCE = 24  # linux/capability.h


def adapting_commands(folder):
    """The commands that adapt an unpacked plugin to this machine: in a sandbox, root may lack a
    capability, and so cannot grant it. The plugin can do without this one, but cannot grow an ext4
    then."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    bounds = int(re.search(r"^CapBnd:\s+(\w+)", status, re.MULTILINE)[1], 16)
    if bounds >> CAP_SYS_RESOURCE & 1:
        return []
    return [rf"""sed -zi 's/,\s*"CAP_SYS_RESOURCE"//' {folder}/config.json"""]


class Instance:
    """One of the simulator's instances: its own engine, and the plugin once it is installed.

    `settings` are passed to `docker plugin set`. The state is in the engine's folder, not in the
    machine's.
    """

    def __init__(self, simulator, id, settings=None):
        self.simulator, self.id = simulator, id
        self.settings = settings or {}
        self.engine = None
        self.cleanup = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as cleanup:
            self._start(cleanup)
            self.cleanup = cleanup.pop_all()
        return self

    def _start(self, cleanup):
        self.engine = cleanup.enter_context(engine.Engine())
        self.engine.import_image("box")

    def __exit__(self, *_):
        with engine.signals_held():
            self.cleanup.close()

    # The plugin

    def install_commands(self):
        """Runs the commands in the README, with the settings that connect the plugin to the
        simulator."""
        settings = {**self.simulator.environment(self.id),
                    "state.source": self.engine.lib, **self.settings}
        for command in readme_commands("docker plugin create"):
            if command.startswith("docker plugin enable"):
                values = " ".join(f"{name}={value}" for name, value in settings.items())
                yield f"docker plugin set {PLUGIN} {values}"
            yield command.replace("amd64", ARCHITECTURE)
            if command.startswith("tar "):
                yield from adapting_commands(PLUGIN)

    def install(self, echo=lambda command: None, unpack=True):
        """Without `unpack`, uses the folder that the tarball was unpacked to before."""
        if unpack:
            os.symlink(TARBALL, self.engine.directory / TARBALL.name)
        for command in self.install_commands():
            if unpack or command.startswith("docker "):
                echo(command)
                self.shell(command)

    def shell(self, command, timeout=120):
        """A command line as an operator types it, with this engine; its standard output."""
        result = subprocess.run(
            command, shell=True, cwd=self.engine.directory, env=self.engine.environment, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        if result.returncode != 0:
            raise engine.DockerError(["(shell)", command], result)
        return result.stdout

    def socket(self):
        """The plugin's socket, as the host sees it."""
        plugin = self.engine.docker(
            "plugin", "inspect", "--format", "{{.ID}}", PLUGIN).stdout.strip()
        return f"/run/docker/plugins/{plugin}/pl-ebs.sock"

    def remembered(self, file):
        """The ids of the volumes in volumes.json or mounts.json of the plugin's state."""
        path = self.engine.lib / PLUGIN / file
        document = json.loads(path.read_bytes()) if path.exists() else {"volumes": []}
        return [volume["id"] for volume in document["volumes"]]

    # Volumes and containers

    def create(self, volume, *options, **how):
        return self.engine.docker("volume", "create", "-d", PLUGIN, *options, volume, **how)

    def run(self, volume, script, *options, image="box", **how):
        """Runs a shell script in a container that has the volume at /data; its standard output."""
        return self.engine.docker(
            "run", "--rm", "--network", "none", "--volume-driver", PLUGIN,
            "-v", f"{volume}:/data", *options, image, "sh", "-c", script, **how).stdout

    def start(self, volume, script, *options):
        """The same in the background; the container's id."""
        return self.engine.docker(
            "run", "--detach", "--init", "--network", "none", "--volume-driver", PLUGIN,
            "-v", f"{volume}:/data", *options, "box", "sh", "-c", script).stdout.strip()

    def timelines(self):
        """What the daemon logged about each mount: the fields, with numbers converted."""
        found = []
        for line in self.engine.plugin_log():
            fields = dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line))
            if "total_ms" in fields:
                found.append({name: float(value) if name.endswith("_ms") else value.strip('"')
                              for name, value in fields.items()})
        return found

    # What can be seen from outside

    def mounts(self, volume):
        """The mountpoints below the engine's data root whose path names the volume."""
        return [point for point in engine.mounts_below(self.engine.directory) if volume in point]

    def leftovers(self):
        """What a stopped instance has left: processes, mounts, folders."""
        return left_in(self.engine.directory)


class Host(Instance):
    """The first instance, and the simulator with this `configuration`."""

    def __init__(self, volumes=(), settings=None, **configuration):
        sweep()
        self.directory = pathlib.Path(
            tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=SHARED))
        # Device nodes work only if the file system allows them; /dev/shm often does not.
        nodes = nodes_elsewhere(self.directory)
        simulator = Simulator(
            instances=[instance(HERE, devPath="/dev"), instance(ELSEWHERE, devPath=nodes)],
            volumes=volumes, directory=self.directory, **configuration)
        super().__init__(simulator, HERE, settings)

    def _start(self, cleanup):
        cleanup.callback(shutil.rmtree, self.directory)
        cleanup.callback(shutil.rmtree, nodes_elsewhere(self.directory), ignore_errors=True)
        # The engine is stopped first, because it holds the simulator's devices.
        cleanup.callback(self._stop_simulator)
        self.simulator.start()
        super()._start(cleanup)

    def _stop_simulator(self):
        if self.simulator.process is not None:
            self.simulator.stop()

    def leftovers(self):
        """What a stopped host has left: loop devices too."""
        left = super().leftovers() + left_in(self.directory)
        for path in glob.glob("/sys/block/loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if str(self.directory) in pathlib.Path(path).read_text():
                    left.append(f"loop device {path.split('/')[3]}")
        return left


def left_in(folder):
    left = [f"folder {folder}"] if folder.exists() else []
    left += [f"process {process}" for process in engine.processes_of(folder)]
    return left + [f"mount {mountpoint}" for mountpoint in engine.mounts_below(folder)]


def nodes_elsewhere(directory):
    return f"/dev/{pathlib.Path(directory).name}"


def sweep():
    """Removes what the simulators of killed runs have left, after the engines that used them."""
    engine.sweep()
    for path in glob.glob(f"{SHARED}/{PREFIX}*"):
        if not os.path.exists("/proc/" + os.path.basename(path)[len(PREFIX):].split("-")[0]):
            # One that still runs cleans up by itself.
            engine.end_processes(pathlib.Path(path), seconds=20)
            killed = Simulator(directory=path)
            if killed.configuration_file.exists():
                killed.clean()
            shutil.rmtree(nodes_elsewhere(path), ignore_errors=True)
            shutil.rmtree(path)
