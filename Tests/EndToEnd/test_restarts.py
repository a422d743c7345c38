"""Ends the plugin or dockerd under a running container: the container continues if Docker lets it,
its data stays, and in the end the volume is released."""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import time

import pytest

import engine
from host import PLUGIN, readme_commands

# A line every few milliseconds, each on disk before the next: data that a container can rely on.
WRITER = ("n=$(cat /data/log 2>/dev/null | wc -l); "
          "while :; do n=$((n+1)); echo $n >> /data/log; sync /data/log; usleep 20000; done")


def wait_until(condition, timeout=60, what="it"):
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError, LookupError, engine.DockerError):
            result = condition()
            if result:
                return result
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout} s"
        time.sleep(0.05)


class Writer:
    """A container that writes continuously."""

    def __init__(self, host, volume, *options):
        self.host, self.volume = host, volume
        self.id = host.start(volume, WRITER, *options)
        self.wait_for_more()

    def lines(self):
        text = self.host.engine.docker("exec", self.id, "cat", "/data/log").stdout
        return int(text.split()[-1])

    def process(self):
        return int(self.host.engine.docker(
            "inspect", "--format", "{{.State.Pid}}", self.id).stdout)

    def wait_for_more(self, than=0):
        """Waits until it has written more lines than these; returns their number."""
        return wait_until(lambda: (n := self.lines()) > than and n, what="another line")

    def remove(self):
        """Stops it; then the volume is released, and contains each of its lines."""
        self.host.engine.docker("rm", "--force", self.id)
        given_back(self.host, self.volume)
        text = self.host.run(self.volume, "cat /data/log")
        count = text.count("\n")
        assert text == "".join(f"{n}\n" for n in range(1, count + 1))
        given_back(self.host, self.volume)
        return count


def given_back(host, volume):
    host.simulator.wait_for_volume(volume, "available", timeout=90)
    assert host.mounts(volume) == []


def wait_for_plugin(host, but_not=None):
    """Waits until a process other than `but_not` is the plugin and answers."""
    def answers():
        process = host.engine.plugin_process()
        if process == but_not:
            return None
        with contextlib.closing(engine.UnixConnection(host.socket(), timeout=60)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200 and process
    return wait_until(answers, what="the plugin's answer")


@contextlib.contextmanager
def live_restore(host):
    """dockerd with --live-restore, which it has only from a start on."""
    host.engine.stop_daemon()
    host.engine.start_daemon("--live-restore")
    wait_for_plugin(host)
    try:
        yield
    finally:
        host.engine.stop_daemon()
        host.engine.start_daemon()
        wait_for_plugin(host)


def test_a_plugin_killed_under_a_container_comes_back_and_loses_nothing(host, new_volume):
    writer = Writer(host, new_volume())
    plugin, process = host.engine.plugin_process(), writer.process()
    before = writer.lines()
    os.kill(plugin, signal.SIGKILL)
    wait_for_plugin(host, but_not=plugin)
    # It is neither unmounted nor released while the container has it, even after the linger.
    writer.wait_for_more(writer.wait_for_more(before))
    assert host.mounts(writer.volume) != []
    assert writer.process() == process
    # Another container finds the same file system.
    assert int(host.run(writer.volume, "tail -n 1 /data/log")) >= before
    writer.wait_for_more(writer.lines())
    assert writer.remove() > before


def test_containers_start_again_with_dockerd_and_have_their_data(host, new_volume):
    writer = Writer(host, new_volume(), "--restart", "always")
    host.engine.stop_daemon()
    host.engine.start_daemon()
    wait_for_plugin(host)
    before = writer.wait_for_more()
    writer.wait_for_more(before)
    assert writer.remove() > before


def test_a_stopped_dockerd_leaves_nothing_mounted(host, new_volume):
    writer = Writer(host, new_volume())
    host.engine.stop_daemon()
    mounted = host.mounts(writer.volume)
    host.engine.start_daemon()
    wait_for_plugin(host)
    assert mounted == []
    host.engine.docker("start", writer.id)
    writer.wait_for_more()
    writer.remove()


def test_a_container_lives_through_a_restart_with_live_restore(host, new_volume):
    with live_restore(host):
        writer = Writer(host, new_volume())
        process, before = writer.process(), writer.lines()
        host.engine.stop_daemon()
        host.engine.start_daemon("--live-restore")
        wait_for_plugin(host)
        writer.wait_for_more(before)
        assert writer.process() == process
        assert writer.remove() > before


@pytest.mark.parametrize("options", [[], ["--live-restore"]], ids=["plain", "live-restore"])
def test_a_killed_dockerd_costs_no_data(host, new_volume, options):
    with live_restore(host) if options else contextlib.nullcontext():
        writer = Writer(host, new_volume(), "--restart", "always")
        process, before = writer.process(), writer.lines()
        host.engine.kill_daemon()
        host.engine.start_daemon(*options)
        wait_for_plugin(host)
        writer.wait_for_more(writer.wait_for_more(before))
        assert (writer.process() == process) == bool(options)
        assert writer.remove() > before


def disable(host):
    host.engine.docker("plugin", "disable", "--force", PLUGIN)


def enable(host, timeout=120):
    host.engine.docker("plugin", "enable", "--timeout", timeout, PLUGIN)
    wait_for_plugin(host)


def test_a_container_lives_through_disabling_and_enabling_by_force(host, new_volume):
    writer = Writer(host, new_volume())
    disable(host)
    enable(host)
    before = writer.lines()
    writer.wait_for_more(before)
    assert int(host.run(writer.volume, "tail -n 1 /data/log")) >= before
    # Longer than the linger, in which a volume taken for unused would be detached.
    assert host.simulator.volume(writer.volume)["state"] == "in-use"
    assert writer.remove() > before


def start_and_wait_for_attach(host, volume):
    """A container that is being started; EC2 has already been asked to attach its volume."""
    run = host.engine.start_docker(
        "run", "--rm", "--network", "none", "-v", f"{volume}:/data", "box", "true")
    wait_until(lambda: host.simulator.calls("AttachVolume") == 1)
    return run


def mount_without_docker(host, volume):
    """A Mount whose Unmount a crashed dockerd would owe."""
    with contextlib.closing(engine.UnixConnection(host.socket(), timeout=60)) as connection:
        connection.request(
            "POST", "/VolumeDriver.Mount", json.dumps({"Name": volume, "ID": "owed"}))
        assert not json.loads(connection.getresponse().read())["Err"]


def test_disabling_by_force_clears_what_nobody_will_unmount(host, new_volume):
    writer, owed = Writer(host, new_volume()), new_volume()
    host.create(owed)
    for volume in (writer.volume, owed):
        mount_without_docker(host, volume)
    disable(host)
    enable(host)
    given_back(host, owed)
    # The container has its own still.
    writer.wait_for_more(writer.lines())
    assert host.simulator.volume(writer.volume)["state"] == "in-use"
    writer.remove()


def stop_dockerd(host):
    host.engine.stop_daemon()


def start_dockerd(host):
    host.engine.start_daemon()
    wait_for_plugin(host)


def remove_plugin(host):
    for command in readme_commands("docker plugin rm"):
        host.shell(command)


def install_other_version(host):
    """`docker plugin upgrade` takes a plugin from a registry only."""
    change_version(host)
    host.install(unpack=False)
    wait_for_plugin(host)


def change_version(host):
    """Another version has other files."""
    (host.engine.directory / PLUGIN / "rootfs" / "etc" / "version").write_text(str(time.time()))


def said(host, *words):
    """Whether a line of the plugin's log has all of them."""
    return any(all(word in line for word in words) for line in host.engine.plugin_log())


def test_an_upgrade_from_a_tarball_keeps_what_there_is(host, new_volume):
    """Removes the plugin's folder with all its mounts. What the plugin knows stays."""
    named, left = new_volume(content="xfs"), new_volume()
    writer = Writer(host, new_volume(content="ext4"))
    host.create("alias", "-o", f"volume-id={named}", "-o", "read-only=true")
    container = host.start(left, "echo kept > /data/file; sync; sleep 600")
    before = writer.lines()

    remove_plugin(host)
    # Ends while there is no plugin, so that nobody gives its volume back.
    host.engine.docker("rm", "--force", container)
    host.simulator.reset_counters()
    install_other_version(host)

    assert {"alias", left, writer.volume} <= set(
        host.engine.docker("volume", "ls", "--quiet").stdout.split())
    given_back(host, left)
    assert host.simulator.calls("AttachVolume") == 0
    # The running container holds its volume, which nobody counts.
    wait_until(lambda: said(host, writer.volume, "not released yet", "a mount namespace"))
    assert host.simulator.volume(writer.volume)["state"] == "in-use"
    writer.wait_for_more(before)
    # Another one joins it; its file system is not repaired meanwhile, although it was not
    # unmounted.
    assert int(host.run(writer.volume, "tail -n 1 /data/log")) > before
    assert host.run("alias", "touch /data/file 2>&1 || true").endswith("Read-only file system\n")
    assert host.run(left, "cat /data/file") == "kept\n"
    assert writer.remove() > before
    host.engine.docker("volume", "rm", "alias")
    given_back(host, named)


def test_a_second_version_enabled_beside_the_first_is_told_so(host, new_volume):
    volume = new_volume()
    host.run(volume, "echo kept > /data/file")
    plugin = host.engine.plugin_process()
    change_version(host)
    host.engine.docker("plugin", "create", "second", host.engine.directory / PLUGIN)
    try:
        host.shell(next(c for c in host.install_commands() if "plugin set" in c).replace(
            f"set {PLUGIN}", "set second"))
        host.engine.docker("plugin", "enable", "second", check=False)
        enabled = host.engine.docker(
            "plugin", "ls", "--filter", "enabled=true", "--format", "{{.Name}}").stdout.split()
        assert enabled == [f"{PLUGIN}:latest"]
        assert [line for line in host.engine.plugin_log() if "does not start" in line
                and "another daemon uses it" in line and "docker plugin disable" in line]
    finally:
        host.engine.docker("plugin", "rm", "--force", "second")
    assert host.engine.plugin_process() == plugin
    assert host.run(volume, "cat /data/file") == "kept\n"


@pytest.mark.parametrize("end", [disable, stop_dockerd], ids=["disable", "dockerd"])
def test_a_plugin_ended_in_the_middle_of_a_mount_ends_by_itself(host, new_volume, end):
    volume, again = new_volume(content="xfs"), enable if end is disable else start_dockerd
    writer = Writer(host, new_volume()) if end is disable else None
    host.create(volume)
    # Longer than the 10 s after which dockerd kills.
    host.simulator.latency(device=11000)
    host.simulator.reset_counters()
    try:
        run = start_and_wait_for_attach(host, volume)
        told = len(host.engine.plugin_log())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            socket = host.socket()
            ending = pool.submit(end, host)
            wait_until(lambda: "stopping" in "".join(host.engine.plugin_log()[told:]))
            with pytest.raises(OSError):
                engine.UnixConnection(socket).connect()
            assert not ending.done()
            ending.result()
        # SIGKILL would not have let it say so.
        assert host.engine.plugin_log()[-1].endswith("stopped")
        again(host)
        run.communicate(timeout=60)
        assert host.run(volume, "echo there") == "there\n"
    finally:
        host.simulator.latency(device=30)
    given_back(host, volume)
    if writer:
        writer.wait_for_more(writer.lines())
        writer.remove()


def test_an_attachment_slower_than_docker_waits_is_found_by_the_retry(host, new_volume):
    volume = new_volume(content="xfs")
    host.create(volume)
    disable(host)
    enable(host, timeout=2)
    host.simulator.latency(device=7000)
    host.simulator.reset_counters()
    try:
        refused = host.engine.docker(
            "run", "--rm", "--network", "none", "-v", f"{volume}:/data", "box", "true",
            check=False)
        assert refused.returncode != 0
        assert wait_until(lambda: host.run(volume, "echo there")) == "there\n"
        assert host.simulator.calls("AttachVolume") == 1
    finally:
        host.simulator.latency(device=30)
        disable(host)
        enable(host)
    given_back(host, volume)
    # dockerd asks once more, with an empty body, and prints the answer to that.
    assert re.search("--timeout|deadline exceeded", refused.stderr), refused.stderr


def test_a_plugin_killed_in_the_middle_of_a_mount_serves_the_next_try(host, new_volume):
    volume = new_volume(content="xfs")
    host.create(volume)
    host.simulator.latency(device=3000)
    host.simulator.reset_counters()
    try:
        run = start_and_wait_for_attach(host, volume)
        plugin = host.engine.plugin_process()
        os.kill(plugin, signal.SIGKILL)
        wait_for_plugin(host, but_not=plugin)
        _, said = run.communicate(timeout=60)
        # What dockerd repeats has no body, so the user has to.
        assert run.returncode != 0 and "error while mounting volume" in said
        assert host.run(volume, "echo there") == "there\n"
    finally:
        host.simulator.latency(device=30)
    given_back(host, volume)
