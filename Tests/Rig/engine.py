"""Runs a private Docker Engine for the demo and the end-to-end tests, independent of any other on
the machine.

    with Engine() as engine:
        engine.import_image("box")
        print(engine.docker("run", "--rm", "box", "echo", "hello").stdout)

It has its own data root, sockets, cgroup and log in one folder, no bridge and no iptables rules.
Leaving the block, even by an error or a signal, ends its processes by their ids, unmounts
everything in the folder, and removes it; a later start removes the folder of a run that was killed.

What a managed plugin sees of the host, tried with 20.10.24:

- The whole of /dev by the config's rbind, /dev/shm with it: as the same devtmpfs and tmpfs, so a
  node made on the host appears in the plugin, with its inotify event. A test's sysfs tree and CA
  file lie under /dev/shm therefore. /sys is the plugin's own, read-only view of the real one.
- `propagatedMount` is `<data root>/plugins/<id>/propagated-mount`, mounted on the plugin's /mnt and
  shared: a mount that the plugin makes there reaches the containers. The data root must lie in a
  shared mount itself, hence the bind mount below.
- Its socket is /run/docker/plugins/<id>/pl-ebs.sock on the host, whatever the exec root is.
- A settable mount's source is set by `docker plugin set NAME MOUNT.source=/path`, while the plugin
  is disabled; it must exist when the plugin is enabled.
- What it prints is in dockerd's log: a line each, msg= quoted as Go does, plugin=<id>.
- Host network with the host's /etc/hosts and /etc/resolv.conf; 8 MiB of locked memory, no seccomp
  profile that bars io_uring, Docker's default capabilities and those that the config adds.
"""

import contextlib
import ctypes
import glob
import http.client
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time

PREFIX = "polarity-engine-"
PR_SET_CHILD_SUBREAPER = 36


def why_unavailable():
    """Why no engine can run here; None if one can."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("dockerd", "docker", "containerd", "runc", "busybox"):
        if shutil.which(program) is None:
            return f"no {program} (make deps)"
    return None


class Engine:
    def __init__(self):
        sweep()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        # As on a host: the data root is in /var/lib, and so is what is kept for plugins.
        self.lib = self.directory / "lib"
        self.root = self.lib / "docker"
        self.socket = self.directory / "docker.sock"
        self.log = self.directory / "dockerd.log"
        self.cgroup = "/" + self.directory.name
        self.process = None
        self.environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.directory / "client"),
        }
        # Container shims detach from dockerd; as this process's children they can be reaped.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    # Life

    def start(self):
        self.root.mkdir(parents=True)
        _run("mount", "--bind", self.root, self.root)
        _run("mount", "--make-rshared", self.root)
        return self.start_daemon()

    def start_daemon(self, *options, timeout=60):
        """dockerd alone, as after stop_daemon() or kill_daemon()."""
        # A session of its own: an interrupt typed at the terminal is for this process, which
        # then stops it.
        self.process = subprocess.Popen(
            ["dockerd", "--data-root", self.root, "--exec-root", self.directory / "exec",
             "--host", f"unix://{self.socket}", "--pidfile", self.directory / "dockerd.pid",
             # A parent cgroup by its path, which the systemd driver would not take.
             "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", self.cgroup,
             "--iptables=false", "--bridge=none", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.log, "ab"),
            start_new_session=True)
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("dockerd did not start:\n" + self.log.read_text()[-3000:])
            time.sleep(0.05)
        return self

    def _answers(self):
        with contextlib.closing(UnixConnection(self.socket, timeout=60)) as connection:
            try:
                connection.request("GET", "/_ping")
                return connection.getresponse().status == 200
            except OSError:
                return False

    def stop_daemon(self, timeout=40):
        """Sends SIGTERM to dockerd, which stops the plugins; sends SIGKILL if it does not end."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill_daemon(self):
        """kill -9 of dockerd, with which its containerd dies: plugins and containers stay."""
        containerd = int((self.directory / "exec/containerd/containerd.pid").read_text())
        self.process.kill()
        self.process.wait()
        self.process = None
        # The next dockerd would consider an unreaped one alive.
        deadline = time.monotonic() + 60
        while os.path.exists(f"/proc/{containerd}"):
            if time.monotonic() > deadline:
                raise RuntimeError("containerd does not end")
            _reap_orphans()
            time.sleep(0.02)

    def stop(self):
        """Ends everything and removes the folder. Raises when something cannot be removed."""
        with signals_held():
            if self.process is not None and self.process.poll() is None:
                self._remove_containers_and_plugins()
            self.stop_daemon()
            remove_folder(self.directory)

    def _remove_containers_and_plugins(self):
        for listed, removed in ((["ps", "--all", "--quiet"], ["rm", "--force", "--volumes"]),
                                (["plugin", "ls", "--quiet"], ["plugin", "rm", "--force"])):
            # Whatever fails here, the code below ends the processes and unmounts the mounts.
            with contextlib.suppress(DockerError, subprocess.SubprocessError, OSError):
                names = self.docker(*listed, timeout=60).stdout.split()
                if names:
                    self.docker(*removed, *names, timeout=60)

    # Use

    def docker(self, *arguments, check=True, timeout=120, **options):
        """Runs the docker command; its result has stdout and stderr as text."""
        result = subprocess.run(
            ["docker", *map(str, arguments)], env=self.environment, timeout=timeout,
            **{"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **options})
        if check and result.returncode != 0:
            raise DockerError(arguments, result)
        return result

    def start_docker(self, *arguments):
        """Starts the docker command without waiting for it."""
        return subprocess.Popen(
            ["docker", *map(str, arguments)], env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def import_image(self, name, files=None):
        """An image of busybox and `files` (path -> text), without a registry."""
        busybox = shutil.which("busybox")
        applets = subprocess.run(
            [busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(os.path.realpath(busybox), "bin/busybox")
            for applet in applets:
                if applet != "busybox":
                    link = tarfile.TarInfo(f"bin/{applet}")
                    link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                    tar.addfile(link)
            for path, text in (files or {}).items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        self.docker("import", "-", f"{name}:latest", stdin=None, text=False,
                    input=packed.getvalue())

    def plugin_log(self):
        """The lines that plugins have printed so far, oldest first."""
        lines = []
        for line in self.log.read_text(errors="replace").splitlines():
            match = re.search(r' msg=("(?:[^"\\]|\\.)*"|\S*) plugin=[0-9a-f]+$', line)
            if match:
                lines.append(_unquoted(match[1]))
        return lines

    def plugin_process(self):
        """The process id of the plugin's daemon."""
        for process in processes_of(self.directory):
            if _command(process)[:1] == ["/bin/polarity-ecs-ebs-plugin"]:
                return process
        raise LookupError("no plugin is running")


class DockerError(Exception):
    def __init__(self, arguments, result):
        super().__init__(f"docker {' '.join(map(str, arguments))}: exit {result.returncode}: "
                         f"{result.stderr or result.stdout}")
        self.stderr = result.stderr


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def _unquoted(text):
    if not text.startswith('"'):
        return text
    # Go's quoting is JSON's but for \x.., \a and \v.
    text = re.sub(r"\\x([0-9a-f]{2})", r"\\u00\1", text)
    try:
        return json.loads(text)
    except ValueError:
        return text[1:-1]


def _run(*command):
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL, timeout=60)


# Cleaning up


def interrupt_on_signals():
    """Makes SIGTERM and SIGHUP unwind like an interrupt, so that everything that was started is
    ended, even in a process that was started with interrupts ignored, as shells do with background
    jobs."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def signals_held():
    """Delays signals during a cleanup."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def sweep():
    """Removes what killed runs have left."""
    for path in glob.glob(os.path.join(tempfile.gettempdir(), PREFIX + "*")):
        owner = os.path.basename(path)[len(PREFIX):].split("-")[0]
        if not os.path.exists(f"/proc/{owner}"):
            remove_folder(pathlib.Path(path))


def remove_folder(directory):
    """Ends the processes that an engine in `directory` left, unmounts, removes the folder."""
    end_processes(directory, seconds=5)
    while mounted := mounts_below(directory):
        # One at a time, because unmounting one may unmount its peers. Lazily only as a last resort:
        # otherwise a busy mount would stay forever.
        subprocess.run(["umount", mounted[-1]], capture_output=True, timeout=60)
        if mounts_below(directory) == mounted:
            _run("umount", "--lazy", mounted[-1])
    for path in glob.glob(f"/sys/fs/cgroup/*/{directory.name}") + [
            f"/sys/fs/cgroup/{directory.name}"]:
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    # Where dockerd keeps the plugins' sockets, outside the folder, and removes them if it can.
    for plugin in glob.glob(f"{directory}/lib/docker/plugins/" + "[0-9a-f]" * 64):
        shutil.rmtree(f"/run/docker/plugins/{os.path.basename(plugin)}", ignore_errors=True)
    shutil.rmtree(directory)


def end_processes(directory, seconds):
    """Ends processes_of(directory): SIGTERM, and after `seconds` SIGKILL."""
    deadline = time.monotonic() + seconds
    told = set()
    while left := processes_of(directory):
        late = time.monotonic() > deadline
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                if late or process not in told:
                    os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
        told.update(left)
        if time.monotonic() > deadline + 10:
            raise RuntimeError(f"processes that do not end: {left}")
        _reap_orphans()
        time.sleep(0.05)
    _reap_orphans()


def processes_of(directory):
    """Processes whose command line names the engine's folder (dockerd, containerd, shims), or whose
    mount namespace has it mounted (plugins, containers)."""
    found = []
    name = str(directory)
    here = os.readlink("/proc/self/ns/mnt")
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(f"{name}/" in part for part in _command(entry)):
                found.append(int(entry))
            elif os.readlink(f"/proc/{entry}/ns/mnt") != here:
                with open(f"/proc/{entry}/mountinfo", encoding="utf-8") as file:
                    if f"{name}/" in file.read():
                        found.append(int(entry))
    return found


def _command(process):
    with open(f"/proc/{process}/cmdline", "rb") as file:
        return file.read().decode(errors="replace").split("\0")[:-1]


def _reap_orphans():
    """Reaps adopted shims. Only processes that dockerd started are in another session than this
    one; processes that were started here are reaped by whoever waits for them."""
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            children = [int(child) for child in file.read().split()]
        for child in children:
            with open(f"/proc/{child}/stat", encoding="ascii", errors="replace") as stat:
                state, _, _, session = stat.read().rsplit(")", 1)[1].split()[:4]
            if state == "Z" and int(session) != os.getsid(0):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child, os.WNOHANG)


def mounts_below(directory):
    """Mountpoints in the folder, in the order in which they were mounted."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            mountpoint = line.split(" ")[4].encode().decode("unicode_escape")
            if mountpoint.startswith(f"{directory}/"):
                found.append(mountpoint)
    return found
