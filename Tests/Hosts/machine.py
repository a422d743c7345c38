"""Runs a virtual machine: QEMU without KVM, its monitor (QMP), and the guest agent in it."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import threading
import time

from images import ROOT_PARTITION

PORTS = 12  # How many volumes fit in addition to the root.
BOOT_SECONDS = 240
ENGINE_PORT = 2375  # Where dockerd listens in the guest.
MEMORY = "1536M"

# By architecture: QEMU's machine, processor and console.
BOARDS = {
    "amd64": ("q35", "max", "ttyS0"),
    "arm64": ("virt,gic-version=3", "max,pauth-impdef=on", "ttyAMA0"),
}


class GuestError(Exception):
    """A command failed in the guest."""


class Machine:
    """`disk` is not changed: what the guest writes survives its reboots, and is lost when this
    ends."""

    def __init__(self, program, image, directory, architecture="amd64", append="", *,
                 root_serial):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        board, processor, console = BOARDS[architecture]
        ports = [word for n in range(PORTS + 1) for word in (
            "-device", f"pcie-root-port,id=port{n},chassis={n + 1},slot={n + 1}")]
        self.engine_port = _free_port()
        self.command = [
            program, "-L", "/usr/share/qemu", "-L", "/usr/share/seabios", "-L", "/usr/lib/ipxe/qemu",
            "-accel", "tcg,thread=multi", "-machine", board, "-cpu", processor, "-smp", "2",
            "-m", MEMORY, "-nodefaults", "-no-user-config", "-display", "none",
            "-kernel", image.kernel, "-append",
            f"console={console} root=PARTUUID={ROOT_PARTITION} rootfstype=ext4 rw net.ifnames=0 panic=-1 "
            f"quiet {append}",
            *ports,
            "-drive", f"if=none,id=root,file={image.disk},format=raw,snapshot=on,cache=unsafe",
            # The first port, so that it is usually the first disk.
            "-device", f"nvme,drive=root,serial={root_serial},bus=port0",
            "-netdev",
            f"user,id=net0,hostfwd=tcp:127.0.0.1:{self.engine_port}-:{ENGINE_PORT}",
            "-device", "virtio-net-pci,netdev=net0",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={directory}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-serial", f"file:{directory}/console",
            "-qmp", f"unix:{directory}/monitor,server=on,wait=off",
        ]
        self.process = None
        self.free_ports = [f"port{n}" for n in range(1, PORTS + 1)]

    # Life

    def start(self):
        """Returns when the guest's agent answers; raises if stop() ends it meanwhile."""
        with open(self.directory / "qemu", "wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in self.command], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, process_group=0,
                env={**os.environ, "TMPDIR": str(self.directory),
                     # The modules of the QEMU that this is a copy of.
                     "QEMU_MODULE_DIR": f"/usr/lib/{os.uname().machine}-linux-gnu/qemu"})
        self.monitor = Monitor(self.directory / "monitor", self.check_alive)
        self.agent = Agent(self.directory / "agent", self.check_alive)
        self.agent.wait(BOOT_SECONDS)

    def check_alive(self):
        """Raises if QEMU has exited."""
        if self.process.poll() is not None:
            raise RuntimeError(f"QEMU ended: {(self.directory / 'qemu').read_text()[-2000:]}")

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cut_power(self):
        """Resets the guest without notice; it then starts again with what is attached."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self.monitor.call("system_reset")
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            self.agent.wait(deadline - time.monotonic())
            with contextlib.suppress(GuestError, TimeoutError):
                if self.run("cat /proc/sys/kernel/random/boot_id", timeout=20) != before:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the guest did not start again in {BOOT_SECONDS} s")

    # The guest

    def run(self, script, timeout=120, check=True):
        """A shell script in the guest, as root; its standard output."""
        return self.agent.run(script, timeout, check)

    # Disks

    def plug(self, id, file, driver="nvme", **properties):
        """Hot-plugs a disk, and returns when the monitor has done so."""
        node = {"node-name": f"file-{id}", "driver": "raw",
                "file": {"driver": "file", "filename": str(file)}}
        port = self.free_ports.pop(0)
        self.monitor.call("blockdev-add", **node)
        try:
            self.monitor.call("device_add", driver=driver, id=id, drive=f"file-{id}", bus=port,
                              **properties)
        except BaseException:
            self.free_ports.append(port)
            self.monitor.call("blockdev-del", **{"node-name": f"file-{id}"})
            raise
        return port

    def unplug(self, id, port, timeout=60):
        """Requests the removal of a disk, mounted or not, and waits until the guest has released
        it."""
        since = self.monitor.call("device_del", id=id)
        self.monitor.wait_for("DEVICE_DELETED", lambda data: data.get("device") == id, timeout, since)
        self.monitor.call("blockdev-del", **{"node-name": f"file-{id}"})
        self.free_ports.append(port)


class Monitor:
    """QMP. Calls may come from several threads."""

    def __init__(self, path, alive):
        self.socket = _connect(path, alive)
        self.lines = self.socket.makefile("rb")
        self.lock = threading.Lock()
        self.changed = threading.Condition()
        self.events, self.answers = [], {}
        self.count = 0
        json.loads(self.lines.readline())
        threading.Thread(target=self._read, daemon=True).start()
        self.call("qmp_capabilities")

    def _read(self):
        with contextlib.suppress(OSError, ValueError):
            for line in self.lines:
                message = json.loads(line)
                with self.changed:
                    if "event" in message:
                        self.events.append(message)
                    else:
                        self.answers[message["id"]] = message
                    self.changed.notify_all()

    def call(self, command, timeout=60, **arguments):
        """QEMU's response; for device_del, the number of earlier events."""
        with self.changed:
            self.count += 1
            number, since = self.count, len(self.events)
        with self.lock:
            self.socket.sendall(json.dumps(
                {"execute": command, "arguments": arguments, "id": number}).encode() + b"\n")
        with self.changed:
            if not self.changed.wait_for(lambda: number in self.answers, timeout):
                raise TimeoutError(f"QEMU did not answer {command} in {timeout} s")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{command} {arguments}: {answer['error']['desc']}")
        return since if command == "device_del" else answer["return"]

    def wait_for(self, event, condition, timeout, since=0):
        def seen():
            return any(e["event"] == event and condition(e.get("data", {}))
                       for e in self.events[since:])
        with self.changed:
            if not self.changed.wait_for(seen, timeout):
                raise TimeoutError(f"no {event} in {timeout} s")


class Agent:
    """QEMU's guest agent: one line of JSON in each direction, one conversation at a time."""

    def __init__(self, path, alive):
        self.path, self.alive = path, alive
        self.socket = None
        self.buffer = b""
        self.lock = threading.Lock()
        self.count = 0

    def wait(self, timeout):
        """Waits until the agent answers; skips responses to requests from before its start."""
        deadline = time.monotonic() + timeout
        while True:
            self.alive()
            with self.lock, contextlib.suppress(TimeoutError, ValueError, KeyError, GuestError):
                if self._synchronise():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the guest agent did not answer in {timeout:.0f} s")

    def _synchronise(self):
        if self.socket is not None:
            self.socket.close()
        self.socket, self.buffer = _connect(self.path, self.alive), b""
        self.count += 1
        # 0xFF makes the agent forget an incomplete line (it may complain), and marks the response.
        self.socket.sendall(b"\xff" + json.dumps(
            {"execute": "guest-sync-delimited", "arguments": {"id": self.count}}).encode() + b"\n")
        deadline = time.monotonic() + 3
        while b"\xff" not in (answer := self._line(deadline - time.monotonic())):
            pass
        return json.loads(answer[answer.rindex(b"\xff") + 1:])["return"] == self.count

    def _line(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            received = self.socket.recv(1 << 20)
            if not received:
                raise TimeoutError("the guest agent's connection ended")
            self.buffer += received
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def _call(self, command, **arguments):
        with self.lock:
            self.socket.sendall(json.dumps(
                {"execute": command, "arguments": arguments}).encode() + b"\n")
            answer = json.loads(self._line(30))
        if "error" in answer:
            raise GuestError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def run(self, script, timeout, check):
        deadline = time.monotonic() + timeout
        process = self._call("guest-exec", **{
            "path": "/bin/bash", "arg": ["-c", script], "capture-output": True})["pid"]
        while not (status := self._call("guest-exec-status", pid=process))["exited"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"in the guest, this did not end in {timeout} s: {script}")
            time.sleep(0.05)
        output = base64.b64decode(status.get("out-data", "")).decode(errors="replace")
        errors = base64.b64decode(status.get("err-data", "")).decode(errors="replace")
        code = status.get("exitcode", f"signal {status.get('signal')}")
        if check and code != 0:
            raise GuestError(f"{script}: exit {code}: {errors}{output}")
        return output if check else f"{output}{errors}"


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _connect(path, alive, timeout=30):
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            alive()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
