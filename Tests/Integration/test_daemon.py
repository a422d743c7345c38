"""Tests the daemon as a process: start, exit, log, and EC2's faults as seen from its socket."""

import json
import os
import socket
import subprocess

import pytest

import engine
from conftest import HERE
from daemon import PluginError, executable, runner
from simulator import SECRET_KEY
from test_loop import BARRING


def test_it_has_one_thread_before_the_first_mount_and_after_the_last(daemon, new_volume):
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    daemon.wait_until(lambda d: d.threads() == 1)
    volume = new_volume()
    daemon.create(volume)
    daemon.mount(volume)
    daemon.unmount(volume)
    daemon.wait_until(lambda d: d.threads() == 1)


def test_an_idle_daemon_does_not_wake_up(daemon):
    # The last call that it makes by itself.
    daemon.wait_until(lambda d: "the attachment limit of this instance" in d.log())
    daemon.wait_until(lambda d: d.is_asleep())
    before = daemon.status("voluntary_ctxt_switches")
    # Nothing must happen, so there is nothing to wait for: the elapsed time is the test.
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(3)
    assert daemon.status("voluntary_ctxt_switches") == before


@pytest.mark.parametrize("name, value", [
    ("DETACH_AFTER", "soon"), ("INSTANCE_ID", "me"), ("LOG_LEVEL", "loud"),
    ("AWS_MAX_ATTEMPTS", "0"), ("HTTPS_PROXY", "socks5://x")])
def test_a_wrong_setting_is_refused_with_its_name(tmp_path, name, value):
    ended = subprocess.run(
        [*runner(), executable()], env={"SOCK_PATH": str(tmp_path / "s"), name: value}, timeout=60,
        stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode != 0
    assert name in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(start, daemon, tmp_path):
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o660
    with pytest.raises(RuntimeError, match="does not answer"):
        start("i-0bbbbbbbbbbbbbbb2", "second", SOCK_PATH=str(daemon.socket))
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()


def test_two_daemons_never_share_a_state_folder(start, daemon):
    shared = dict(STATE_PATH=str(daemon.state_path))
    with pytest.raises(RuntimeError) as refused:
        start("i-0bbbbbbbbbbbbbbb2", "second", **shared)
    for part in [shared["STATE_PATH"], f"process {daemon.process.pid};", "docker plugin disable"]:
        assert part in str(refused.value)
    # What a killed daemon held is free as soon as it is gone.
    daemon.kill()
    start("i-0bbbbbbbbbbbbbbb2", "third", **shared)


def test_without_metadata_the_socket_answers_and_health_recovers(simulator, start, new_volume):
    simulator.fault("IMDS", "error", status=503, count=1000)
    volume = new_volume()
    daemon = start()
    daemon.wait_until(lambda d: d.health().get("reason", "starting") != "starting")
    health = daemon.health()
    assert health["status"] == "degraded" and "503" in health["reason"]
    assert set(health) >= {"status", "timestamp", "commit"}
    with pytest.raises(PluginError, match="503"):
        daemon.create(volume)
    simulator.clear_faults()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    daemon.create(volume)
    daemon.mount(volume)


def test_health_tells_while_ec2_does_not_answer(simulator, daemon, new_volume):
    volume = new_volume()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    simulator.fault("*", "reset", count=1000)
    with pytest.raises(PluginError, match="EC2 did not answer"):
        daemon.create(volume)
    health = daemon.health()
    assert health["status"] == "degraded" and "did not answer" in health["reason"]
    simulator.clear_faults()
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    daemon.create(volume)


@pytest.mark.parametrize("kind", ["lostBefore", "lostAfter", "reset", "truncated"])
def test_a_broken_answer_to_attach_is_survived_with_one_attachment(
        simulator, daemon, new_volume, kind):
    volume = new_volume(content="xfs")
    daemon.create(volume)
    simulator.fault("AttachVolume", kind)
    mountpoint = daemon.mount(volume)
    assert os.path.ismount(mountpoint)
    assert len(simulator.volume(volume)["attachments"]) == 1


@pytest.mark.parametrize("kind", ["lostBefore", "lostAfter", "reset", "truncated"])
def test_a_broken_answer_to_describe_is_asked_again(simulator, daemon, new_volume, kind):
    daemon.wait_until(lambda d: d.health()["status"] == "ok")
    simulator.fault("DescribeVolumes", kind)
    daemon.create(new_volume())


def test_throttling_is_waited_out(simulator, daemon, new_volume):
    volume = new_volume(content="xfs")
    simulator.fault("DescribeVolumes", "error", code="RequestLimitExceeded", count=2)
    simulator.fault("AttachVolume", "error", code="RequestLimitExceeded", count=2)
    daemon.create(volume)
    assert os.path.ismount(daemon.mount(volume))


def test_a_refusal_reaches_the_caller_with_volume_instance_and_code(
        simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume)
    simulator.fault("AttachVolume", "error", code="AttachmentLimitExceeded", message="28 of 28")
    with pytest.raises(PluginError) as error:
        daemon.mount(volume)
    for part in [volume, HERE, "AttachmentLimitExceeded", "28 of 28"]:
        assert part in str(error.value)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_mounts_and_counts_outlive_the_process(simulator, daemon, new_volume, end):
    volume = new_volume()
    daemon.create(volume)
    mountpoint = daemon.mount(volume, "a")
    daemon.mount(volume, "b")
    (mountpoint / "file").write_text("kept")
    getattr(daemon, end)()
    assert (mountpoint / "file").read_text() == "kept"
    daemon.start()
    daemon.unmount(volume, "a")
    assert (mountpoint / "file").read_text() == "kept"
    daemon.unmount(volume, "b")
    assert not os.path.ismount(mountpoint)
    simulator.wait_for_volume(volume, "available")


@pytest.mark.parametrize("torn, mounts", [("volumes.json", "1"), ("mounts.json", "0")])
def test_a_state_file_that_is_torn_is_kept_aside_and_the_mounts_are_found(
        daemon, new_volume, torn, mounts):
    volume = new_volume()
    daemon.call("VolumeDriver.Create", Name="data", Opts={"volume-id": volume})
    mountpoint = daemon.mount("data")
    daemon.stop()
    state = daemon.state_path / torn
    state.write_bytes(state.read_bytes()[:-9])
    daemon.environment["DETACH_AFTER"] = "never"
    daemon.start()
    found = daemon.call("VolumeDriver.Get", Name="data")["Volume"]
    assert found["Mountpoint"] == str(mountpoint)
    assert found["Status"]["mounts"] == mounts
    assert state.with_name(f"{torn}.unreadable").exists()


def test_it_ends_in_time_while_a_mount_is_under_way(simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume)
    simulator.fault("AttachVolume", "hang")
    connection = daemon.start_call("VolumeDriver.Mount", Name=volume, ID="x")
    daemon.wait_until(lambda d: d.phase(volume) == "mounting")
    assert daemon.stop(timeout=10) == 0
    connection.close()


def test_no_secret_is_in_the_log(simulator, start, new_volume):
    daemon = start(LOG_LEVEL="trace")
    volume = new_volume()
    simulator.fault("DescribeVolumes", "error", code="SignatureDoesNotMatch")
    with pytest.raises(PluginError):
        daemon.create(volume)
    daemon.create(volume)
    daemon.mount(volume)
    daemon.unmount(volume)
    log = daemon.log()
    assert volume in log
    secrets = [SECRET_KEY, "Signature=", "AWS4-HMAC", "X-Amz-Security-Token", "SecretAccessKey"]
    secrets += [c["secretAccessKey"] for c in simulator.state().get("credentials", [])]
    assert not [secret for secret in secrets if secret in log]


def test_a_request_that_is_none_of_the_protocol_is_told_so(daemon):
    assert daemon.request("GET", "/nothing")[0] == 404
    assert daemon.request("GET", "/VolumeDriver.Get")[0] == 405
    assert daemon.request("DELETE", "/health")[0] == 405
    assert daemon.request("POST", "/health")[0] == 200
    assert daemon.request("POST", "/VolumeDriver.Get", "x" * 200_000)[0] == 413
    status, body = daemon.request("POST", "/VolumeDriver.Get", "{")
    assert status == 200 and "JSON" in json.loads(body)["Err"]


def test_a_client_that_stalls_does_not_keep_others_waiting(daemon):
    stalled = socket.socket(socket.AF_UNIX)
    stalled.connect(str(daemon.socket))
    stalled.sendall(b"POST /VolumeDriver.Get HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    connection = engine.UnixConnection(daemon.socket, timeout=60)
    for _ in range(10):
        connection.request("POST", "/VolumeDriver.List", "{}")
        assert connection.getresponse().read()
    connection.close()
    # The daemon still waits for the other request: it did not serve them one after the other.
    stalled.setblocking(False)
    with pytest.raises(BlockingIOError):
        stalled.recv(1)
    stalled.close()


@pytest.mark.parametrize("backend", [
    pytest.param("io_uring", marks=pytest.mark.skipif(
        bool(runner()), reason="what runs the daemon has no io_uring")), "epoll"])
def test_a_client_that_has_finished_sending_is_answered(simulator, start, new_volume, backend):
    barring = [*BARRING, "EPERM"]
    daemon = start(wrapper=barring if backend == "epoll" else [])
    assert daemon.health()["loop"] == backend
    volume = new_volume()
    daemon.create(volume)
    # As `nc -N` does, which shuts its sending side down after the request.
    body = json.dumps({"Name": volume, "ID": "a"}).encode()
    head = f"POST /VolumeDriver.Mount HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(daemon.socket))
        client.sendall(head.encode() + body)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "Mountpoint": str(daemon.mount_path / volume), "Err": ""}
    assert daemon.call("VolumeDriver.Get", Name=volume)["Volume"]["Status"]["mounts"] == "1"
    daemon.unmount(volume, "a")


def test_a_client_that_hangs_up_after_it_has_finished_sending_is_not_counted(
        simulator, daemon, new_volume):
    volume = new_volume()
    daemon.create(volume)
    simulator.fault("Device", "deviceLate", milliseconds=1000, volume=volume)
    connection = daemon.start_call("VolumeDriver.Mount", Name=volume, ID="gone")
    daemon.wait_until(lambda d: d.phase(volume) == "mounting")
    connection.sock.shutdown(socket.SHUT_WR)
    connection.close()
    daemon.mount(volume, "stays")
    status = daemon.call("VolumeDriver.Get", Name=volume)["Volume"]["Status"]
    assert status["mounts"] == "1"
