"""Tests the log of a real daemon: where its lines go, and that it never waits for a reader."""

import contextlib
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import time

import pytest

import engine
from daemon import runner

MISSING = re.compile(r"log lines are missing here count=(\d+)")


class Reader:
    """A FIFO like the one that dockerd gives to a plugin; initially full, and read only when a test
    says so."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.filler = 0
        self.text = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.filler += os.write(self.descriptor, b"#" * 4096)

    def wrapper(self, *streams):
        """The command that starts the daemon with these standard streams redirected here."""
        redirections = " ".join(f"{stream}>'{self.path}'" for stream in streams)
        return ["sh", "-c", f'exec "$@" {redirections}', "sh"]

    def read_until(self, mark, timeout=60):
        """Reads until there is a line with `mark`; returns all lines so far."""
        deadline = time.monotonic() + timeout
        while mark not in self.whole_lines():
            left = deadline - time.monotonic()
            assert select.select([self.descriptor], [], [], max(left, 0))[0], self.text[-2000:]
            self.text += os.read(self.descriptor, 1 << 16)
        return self.whole_lines().splitlines()

    def whole_lines(self):
        return self.text[self.filler:].rpartition(b"\n")[0].decode()


@pytest.fixture
def reader(tmp_path):
    reader = Reader(tmp_path / "fifo")
    yield reader
    os.close(reader.descriptor)


def ask(daemon, count):
    """Makes this many calls, each of which is logged at level debug; returns the number of
    responses."""
    answered = 0
    with contextlib.closing(engine.UnixConnection(daemon.socket, timeout=60)) as connection:
        for _ in range(count):
            connection.request("POST", "/VolumeDriver.List", "{}")
            answered += json.loads(connection.getresponse().read()) == {"Volumes": [], "Err": ""}
    return answered


@pytest.mark.parametrize("streams", [("1",), ("1", "2")])
def test_a_log_that_is_not_read_delays_no_call_and_its_gap_is_counted(start, reader, streams):
    daemon = start(wrapper=reader.wrapper(*streams))
    # Twice the capacity of the queue.
    asked = 8000
    assert ask(daemon, asked) == asked
    lines = reader.read_until("missing here")
    missing = int(MISSING.search(lines[-1])[1])
    seen = sum("/VolumeDriver.List" in line for line in lines)
    assert 0 < seen < asked and asked <= seen + missing < asked + 100
    assert lines[0].endswith("Z info listening") or " listening " in lines[0], lines[0]
    # The times only grow: no line has overtaken another.
    assert sorted(line[:20] for line in lines) == [line[:20] for line in lines]
    # Then it works as before: a line is there with the response, and nothing is left behind.
    daemon.wait_until(lambda d: d.threads() == 1)
    assert ask(daemon, 3) == 3
    assert sum("/VolumeDriver.List" in line for line in reader.read_until("VolumeDriver.List")) >= seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGABRT, signal.SIGTRAP])
def test_what_waits_goes_out_at_the_end_if_somebody_reads_then(start, reader, number):
    if number == signal.SIGABRT and runner():
        pytest.skip("QEMU keeps the machine's SIGABRT for itself")
    daemon = start(wrapper=reader.wrapper("1"))
    assert ask(daemon, 100) == 100
    daemon.process.send_signal(number)
    lines = reader.read_until("stopped") if number == signal.SIGTERM else read_answers(reader, 100)
    assert daemon.process.wait(10) == (0 if number == signal.SIGTERM else -number)
    assert sum("/VolumeDriver.List" in line for line in lines) == 100


def read_answers(reader, count):
    while reader.whole_lines().count("/VolumeDriver.List") < count:
        assert select.select([reader.descriptor], [], [], 30)[0]
        reader.text += os.read(reader.descriptor, 1 << 16)
    return reader.whole_lines().splitlines()


def test_it_ends_in_time_though_nobody_reads(start, reader):
    daemon = start(wrapper=reader.wrapper("1", "2"))
    assert ask(daemon, 100) == 100
    assert daemon.stop(timeout=10) == 0


def test_it_ends_without_a_crash_while_a_worker_parses_certificates(start, reader, tmp_path):
    # It takes seconds to parse, and the unread log holds up the end of the process meanwhile.
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_bytes() * 100)
    daemon = start(wrapper=reader.wrapper("1", "2"), AWS_CA_BUNDLE=str(bundle))
    assert ask(daemon, 100) == 100
    assert daemon.stop(timeout=10) == 0


def test_errors_go_to_standard_error_and_the_rest_to_standard_output(
        simulator, start, reader, tmp_path):
    simulator.fault("IMDS", "error", status=503, count=1000)
    log = tmp_path / "all.log"
    daemon = start(wrapper=reader.wrapper("1"), LOG_FILE=str(log))
    daemon.wait_until(lambda d: "EC2 is not available yet: trying again" in d.log())
    simulator.clear_faults()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    output = reader.read_until("EC2 answers")
    levels = {line.split(" ")[1] for line in output}
    assert "info" in levels and levels <= {"trace", "debug", "info", "notice"}
    assert {line.split(" ")[1] for line in daemon.log().splitlines()} == {"warning"}
    daemon.wait_until(lambda d: "EC2 answers" in log.read_text())
    both = log.read_text()
    assert "EC2 is not available yet: trying again" in both and " listening " in both


def test_a_log_file_that_cannot_be_opened_is_told_of(start, tmp_path):
    missing = tmp_path / "missing" / "log"
    daemon = start(LOG_FILE=str(missing))
    line, = [line for line in daemon.log().splitlines() if str(missing) in line]
    assert "warning" in line and "No such file" in line


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    yield folder
    # Once no daemon has its log there.
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_of_the_debug_log_delays_no_call(start, small_disk):
    log, filler = small_disk / "log", small_disk / "filler"
    filler.write_bytes(b"#" * 4096 * 10)
    daemon = start(LOG_FILE=str(log))
    assert ask(daemon, 3000) == 3000
    complaint = "the log file cannot be written: lines are missing from it"
    daemon.wait_until(lambda d: complaint in d.log())
    assert daemon.log().count(complaint) == 1 and "No space left on device" in daemon.log()
    filler.unlink()
    assert ask(daemon, 1) == 1
    daemon.wait_until(lambda d: MISSING.search(log.read_text()))
    daemon.wait_until(lambda d: log.read_text().endswith("path=/VolumeDriver.List\n"))
    # The log reports every call, and no two lines are mixed.
    lines = log.read_text().splitlines()
    missing = sum(int(MISSING.search(line)[1]) for line in lines if "missing" in line)
    whole = [line for line in lines if line.startswith("20")]
    assert len(lines) - len(whole) <= 1
    seen = sum(line.endswith("path=/VolumeDriver.List") for line in whole)
    assert 3001 <= seen + missing < 3100


@pytest.fixture
def frozen_disk(tmp_path):
    """A file system whose writes hang until it is thawed; yields it and the function that thaws
    it."""
    image, folder = tmp_path / "image", tmp_path / "frozen"
    folder.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)

    def thaw():
        subprocess.run(["fsfreeze", "--unfreeze", folder], check=False, capture_output=True)

    yield folder, thaw
    thaw()
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_hangs_under_the_debug_log_delays_no_call(start, frozen_disk):
    folder, thaw = frozen_disk
    log = folder / "log"
    daemon = start(LOG_FILE=str(log))
    try:
        daemon.wait_until(lambda d: "listening" in log.read_text())
        subprocess.run(["fsfreeze", "--freeze", folder], check=True)
        assert ask(daemon, 8000) == 8000
        assert daemon.health()["status"] == "ok"
    finally:
        thaw()
    daemon.wait_until(lambda d: MISSING.search(log.read_text()))
    daemon.wait_until(lambda d: d.threads() == 1)
