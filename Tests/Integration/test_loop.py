"""Tests the daemon without io_uring, or without any call that is newer than Linux 4.14: it does the
same with epoll."""

import errno
import os
import pathlib
import platform
import subprocess
import sys

import pytest

from daemon import runner

pytestmark = pytest.mark.skipif(
    bool(runner()), reason="what runs the daemon has no io_uring, or needs calls that are newer than 4.14")

RIG = pathlib.Path(__file__).resolve().parents[1] / "Rig"
BARRING = [sys.executable, str(RIG / "barring.py")]
STARVING = [sys.executable, str(RIG / "starving.py")]
WARNING = "io_uring is blocked"
SHORTAGE = "the kernel is short of memory"
# The arguments for barring.py, and what /health and the log then contain: the call's error, and the
# setting.
BARRIERS = [
    ("EPERM", ["not permitted", "a seccomp filter bars it"]),
    ("ENOSYS", ["not implemented", platform.release(), "CONFIG_IO_URING", "a seccomp filter bars it"]),
    ("ENOMEM", ["memory", "RLIMIT_MEMLOCK", "ulimit -l"]),
    ("EINVAL", ["Invalid argument", platform.release(), "too old", "takes 5.7"]),
    ("4.14", ["not implemented", "takes 5.7"]),
]


@pytest.fixture(params=["EPERM", "4.14"])
def barred(request, start):
    """A daemon without io_uring."""
    return start(wrapper=[*BARRING, request.param])


@pytest.mark.parametrize("what, words", BARRIERS, ids=[what for what, _ in BARRIERS])
def test_health_and_log_name_what_bars_io_uring(start, what, words):
    daemon = start(wrapper=[*BARRING, what])
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    health = daemon.health()
    assert set(health) >= {"status", "timestamp", "version", "commit"}
    assert health["loop"] == "epoll"
    lines = [line for line in daemon.log().splitlines() if WARNING in line]
    assert len(lines) == 1
    assert "warning" in lines[0]
    for word in words:
        assert word in health["loop_reason"] and word in lines[0]


def test_a_volume_is_formatted_mounted_and_given_back(simulator, barred, new_volume):
    daemon, volume = barred, new_volume()
    daemon.create(volume)
    mountpoint = daemon.mount(volume)
    (mountpoint / "file").write_text("hello")
    daemon.unmount(volume)
    assert not os.path.ismount(mountpoint)
    simulator.wait_for_volume(volume, "available")
    assert (daemon.mount(volume) / "file").read_text() == "hello"


def test_it_has_one_thread_and_does_not_wake_up_when_idle(barred, new_volume):
    daemon, volume = barred, new_volume()
    # The last call that it makes by itself.
    daemon.wait_until(lambda d: "the attachment limit of this instance" in d.log())
    daemon.create(volume)
    daemon.mount(volume)
    daemon.wait_until(lambda d: d.is_asleep())
    before = daemon.status("voluntary_ctxt_switches")
    # Nothing must happen, so there is nothing to wait for: the elapsed time is the test.
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(3)
    assert daemon.status("voluntary_ctxt_switches") == before


def test_clients_are_served_at_once_and_those_that_hang_up_are_dropped(barred):
    daemon = barred
    clients = [daemon.start_call("VolumeDriver.List") for _ in range(50)]
    for client in clients[::2]:
        client.close()
    for client in clients[1::2]:
        assert client.getresponse().status == 200
        client.close()
    daemon.wait_until(lambda d: len(os.listdir(f"/proc/{d.process.pid}/fd")) < 20)
    daemon.stop()
    assert daemon.process.returncode == 0


WITHOUT_LOCKED_MEMORY = ["prlimit", "--memlock=0:0", "setpriv", "--bounding-set", "-ipc_lock"]
SET_UP = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(0 if libc.syscall(425, 16, ctypes.create_string_buffer(120)) >= 0 else ctypes.get_errno())
"""


def set_up_io_uring(*wrapper):
    """Whether there is an io_uring, by its own system call: 0 or the errno."""
    return int(subprocess.run([*wrapper, sys.executable, "-c", SET_UP], check=True,
                              capture_output=True, timeout=60).stdout)


def test_without_locked_memory_it_runs_and_names_the_limit_where_the_kernel_counts(start):
    code = set_up_io_uring(*WITHOUT_LOCKED_MEMORY)
    daemon = start(wrapper=WITHOUT_LOCKED_MEMORY)
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    health = daemon.health()
    if code == errno.ENOMEM:
        assert "RLIMIT_MEMLOCK (ulimit -l), 0 bytes" in health["loop_reason"]
    assert health["loop"] == ("io_uring" if code == 0 else "epoll")


def test_io_uring_is_used_where_nothing_bars_it(start):
    if code := set_up_io_uring():
        pytest.skip(f"this machine has no io_uring: {os.strerror(code)}")
    daemon = start()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    health = daemon.health()
    assert health["loop"] == "io_uring", health["loop_reason"]
    assert "loop_reason" not in health
    assert WARNING not in daemon.log()


def test_a_kernel_without_memory_for_io_uring_is_reported_once_and_asked_again(start):
    if code := set_up_io_uring():
        pytest.skip(f"this machine has no io_uring: {os.strerror(code)}")
    daemon = start(wrapper=[*STARVING, "20"])
    assert daemon.call("VolumeDriver.List")["Volumes"] in (None, [])
    [line] = [line for line in daemon.log().splitlines() if SHORTAGE in line]
    assert "warning" in line and "EAGAIN" in line
