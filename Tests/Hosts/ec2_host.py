"""An EC2 instance in a virtual machine: the simulator on this machine, the guest with its Docker
Engine, the disks that come and go between them, and the plugin, installed with the README's
commands."""

import contextlib
import functools
import http.server
import json
import os
import shlex
import shutil
import subprocess
import threading
import time

import images
from bridge import Bridge, NitroDisks, XenDisks
from machine import GuestError, Machine
from host import PLUGIN, readme_commands
from simulator import Simulator, instance, volume

HERE = "i-0aaaaaaaaaaaaaaa1"
ROOT_VOLUME = "vol-00000000000000000"
# This machine, as QEMU shows it to a guest.
THIS_MACHINE = "10.0.2.2"
CA_FILE = "/var/lib/ec2-simulator.pem"
# Emulated processors are slow, and two guests and the simulator may share as many real ones.
PATIENCE_SECONDS = 240
# The daemon looks for a device again after 45 s: a Mount that took as long as that missed the
# event.
MISSED_MILLISECONDS = 40_000
# A line every few milliseconds, each on disk before the next: data that a container can rely on.
WRITER = ("n=$(cat /data/log 2>/dev/null | wc -l); "
          "while :; do n=$((n+1)); echo $n >> /data/log; sync /data/log; usleep 50000; done")


class Host:
    def __init__(self, row, directory):
        self.row, self.directory = row, directory
        self.volumes = 0
        self.cleanup = contextlib.ExitStack()

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self):
        row = self.row
        image = images.image(row.release, row.kernel, row.architecture)
        self.directory.mkdir(parents=True)
        self.simulator = Simulator(
            instances=[instance(HERE, mode=row.disks)],
            volumes=[volume(ROOT_VOLUME, attachedTo={
                "instance": HERE, "device": "/dev/xvda" if row.disks == "nitro" else "/dev/sda1"},
                tags={"Name": "root"})],
            addresses=[THIS_MACHINE], directory=self.directory / "ec2",
            # EC2 says `detached` only when the guest has let the device go.
            latency={"detach": row.detach_milliseconds})
        self.cleanup.enter_context(self.simulator)
        self.machine = Machine(
            images.qemu(row.architecture), image, self.directory / "guest", row.architecture,
            append=" ".join(["init=/guest/init", *row.kernel_options]),
            # A Xen instance's own NVMe disk is an instance store.
            root_serial=ROOT_VOLUME.replace("-", "") if row.disks == "nitro" else "AWS0000")
        self.cleanup.callback(self.machine.stop)
        self.machine.start()
        disks = {"nitro": NitroDisks, "xen": XenDisks}[row.disks]
        self.bridge = self.cleanup.enter_context(
            Bridge(self.simulator, HERE, disks(self.machine)))
        self.wait_for_engine()

    def stop(self):
        self.cleanup.close()

    def keep_logs(self):
        """Copies what tells of a failure out of the guest."""
        with contextlib.suppress(Exception):
            (self.directory / "dockerd.log").write_text(self.guest("cat /var/log/dockerd.log"))
            (self.directory / "dmesg").write_text(self.guest("dmesg"))

    # The guest

    def guest(self, script, timeout=PATIENCE_SECONDS, check=True):
        return self.machine.run(script, timeout, check)

    def docker(self, *arguments, check=True, timeout=PATIENCE_SECONDS):
        """The docker command of this machine with the guest's engine; its standard output."""
        result = subprocess.run(
            ["docker", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=timeout,
            env={**os.environ, "DOCKER_HOST": f"tcp://127.0.0.1:{self.machine.engine_port}",
                 "DOCKER_CONFIG": str(self.directory / "client")})
        if check and result.returncode != 0:
            raise GuestError(f"docker {shlex.join(map(str, arguments))}: exit {result.returncode}: "
                             f"{result.stderr}{result.stdout}")
        return result.stdout

    def wait_until(self, condition, what, timeout=PATIENCE_SECONDS):
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(GuestError):
                if result := condition():
                    return result
            self.machine.check_alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not so in {timeout} s")
            # Each look costs an emulated processor much.
            time.sleep(0.3)

    def wait_for_engine(self):
        self.wait_until(
            lambda: self.guest("curl --silent --unix-socket /run/docker.sock http://engine/_ping")
            == "OK", "dockerd answers")

    def versions(self):
        """Of the kernel and the engine."""
        return (self.guest("uname -r").strip(),
                self.docker("version", "--format", "{{.Server.Version}}").strip())

    def cut_power(self):
        """And back again, with what was attached."""
        self.machine.cut_power()
        self.bridge.machine_restarted()
        self.wait_for_engine()
        self.wait_for_plugin()

    # The plugin

    def prepare(self):
        """What is there before the plugin: its tarball, the CA, and images for containers."""
        with self._serving() as address:
            tarball = self.row.tarball.name
            self.guest(f"cd /root && curl --silent --fail -O {address}/{tarball} && "
                       f"curl --silent --fail -o {CA_FILE} {address}/ca.pem")
        # Of what the guest has, so that it is of its architecture.
        self.guest("""
            mkdir -p /root/box/bin /root/box/data && cp /bin/busybox /root/box/bin &&
            chroot /root/box /bin/busybox --install -s /bin && cd /root/box &&
            tar -c --exclude ./data . | docker import - box &&
            echo seed > data/seed && tar -c . | docker import - seeded""")

    @contextlib.contextmanager
    def _serving(self):
        """A web server for the guest with the tarball and the simulator's CA."""
        folder = self.directory / "served"
        folder.mkdir()
        shutil.copy(self.simulator.ca_file, folder / "ca.pem")
        (folder / self.row.tarball.name).symlink_to(self.row.tarball)
        handler = functools.partial(_QuietHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{THIS_MACHINE}:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()

    def install(self, unpack=True):
        """Runs the commands in the README, with the settings that connect the plugin to the
        simulator."""
        for command in readme_commands("docker plugin create"):
            if command.startswith("docker plugin enable"):
                self._set({
                    "AWS_ENDPOINT_URL_EC2": self._as_seen(self.simulator.endpoint),
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._as_seen(
                        self.simulator.instance(HERE)["imdsEndpoint"]),
                    "AWS_CA_BUNDLE": CA_FILE, "DETACH_AFTER": "5s"})
            if unpack or command.startswith("docker "):
                self.guest("cd /root && " + command.replace("amd64", self.row.architecture))
        self.wait_for_plugin()

    def change(self, settings):
        """Sets them, for which the plugin has to be disabled."""
        self.docker("plugin", "disable", "--force", PLUGIN)
        self._set(settings)
        self.docker("plugin", "enable", "--timeout", "120", PLUGIN)
        self.wait_for_plugin()

    def _set(self, settings):
        self.docker("plugin", "set", PLUGIN,
                    *(f"{name}={value}" for name, value in settings.items()))

    @staticmethod
    def _as_seen(url):
        return url.replace("127.0.0.1", THIS_MACHINE)

    def health(self):
        id = self.docker("plugin", "inspect", "--format", "{{.ID}}", PLUGIN).strip()
        socket = f"/run/docker/plugins/{id}/pl-ebs.sock"
        return json.loads(self.guest(f"curl --silent --unix-socket {socket} http://plugin/health"))

    def wait_for_plugin(self, but_not=None):
        """Until a process other than `but_not` answers."""
        def answers():
            process = self.plugin_process()
            return process != but_not and self.health()["status"] == "ok" and process
        return self.wait_until(answers, "the plugin answers")

    def plugin_process(self):
        return int(self.guest("pgrep --full ^/bin/polarity-ecs-ebs-plugin"))

    def said(self, *words):
        """The lines of dockerd's log, which has the plugin's, with all of these words."""
        log = self.guest("cat /var/log/dockerd.log").splitlines()
        return [line for line in log if all(word in line for word in words)]

    def check_notices(self):
        """That no Mount waited on after its device had come."""
        waits = [(float(field.removeprefix("device_ms=")), line) for line in self.said("device_ms=")
                 for field in line.split() if field.startswith("device_ms=")]
        for milliseconds, line in waits:
            assert milliseconds < MISSED_MILLISECONDS, f"the device's notice was missed: {line}"

    # Volumes and containers

    def new_volume(self, content="blank", **fields):
        self.volumes += 1
        id = f"vol-0{self.volumes:016x}"
        self.simulator.create_volume(id, content=content, **fields)
        return id

    def run(self, volume, script, *options, image="box"):
        """A container with the volume at /data; its standard output."""
        return self.docker("run", "--rm", "--network", "none", "--volume-driver", PLUGIN,
                           "-v", f"{volume}:/data", *options, image, "sh", "-c", script)

    def start(self, volume, script, *options):
        return self.docker("run", "--detach", "--init", "--network", "none", "--volume-driver",
                           PLUGIN, "-v", f"{volume}:/data", *options, "box", "sh", "-c",
                           script).strip()

    def given_back(self, volume):
        self.simulator.wait_for_volume(volume, "available", timeout=PATIENCE_SECONDS)
        self.bridge.check()


class Writer:
    """A container that writes a numbered line after the other, each synced before the next."""

    def __init__(self, host, volume, *options):
        self.host, self.volume = host, volume
        self.process = None
        self.id = host.start(volume, WRITER, *options)
        self.wait_for_more()

    def lines(self):
        """How many there are in the file as the container has it, whatever Docker is doing."""
        process = self.process or self.host.docker(
            "inspect", "--format", "{{.State.Pid}}", self.id).strip()
        self.process = None  # Unless it can be read: then it is this one still.
        count = int(self.host.guest(f"wc -l < /proc/{process}/root/data/log"))
        self.process = process
        return count

    def wait_for_more(self, than=0):
        return self.host.wait_until(
            lambda: (n := self.lines()) > than and n, "the container writes another line")

    def remove(self):
        """Ends it; then the volume is given back, and has every line on another attachment."""
        self.host.docker("rm", "--force", self.id)
        self.host.given_back(self.volume)
        count = self.check()
        self.host.given_back(self.volume)
        return count

    def check(self):
        """That no line is missing; how many there are."""
        text = self.host.run(self.volume, "cat /data/log")
        count = text.count("\n")
        assert text == "".join(f"{n}\n" for n in range(1, count + 1)), "lines are missing"
        return count


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
