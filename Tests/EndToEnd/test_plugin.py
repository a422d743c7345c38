"""Tests the installed plugin: the commands in the README, its process, disabling and enabling."""

import contextlib
import hashlib
import json
import pathlib
import re
import subprocess
import tarfile

import pytest

import engine
from host import PLUGIN, ROOT, TARBALL, adapting_commands, readme_commands


def health(host):
    with contextlib.closing(engine.UnixConnection(host.socket())) as connection:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def threads(process):
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)[1])


def test_the_readme_installs_the_plugin(host):
    commands = readme_commands("docker plugin create")
    assert [c for c in commands if c.startswith("tar -xzf")]
    assert [c for c in commands if c.startswith("docker plugin enable")]
    listed = host.engine.docker(
        "plugin", "ls", "--format", "{{.Name}} {{.Enabled}}").stdout.split()
    assert listed == [f"{PLUGIN}:latest", "true"]


def test_the_readme_health_command_answers(host):
    [command] = readme_commands("/health")
    answer = json.loads(host.shell(command))
    assert answer["status"] == "ok"


def test_health_tells_the_commit_of_the_tarball(host):
    status, answer = health(host)
    assert status == 200
    assert set(answer) >= {"status", "timestamp", "commit"}
    with tarfile.open(TARBALL) as tar:
        config = json.load(tar.extractfile("config.json"))
    assert answer["commit"] in config["description"]


def test_health_tells_what_the_tarball_is_made_of(host):
    with tarfile.open(TARBALL) as tar:
        contents = json.load(tar.extractfile(f"rootfs/usr/share/{PLUGIN}/contents.json"))
        files = {entry.name.removeprefix("rootfs") for entry in tar if entry.isfile()}
    told = health(host)[1]["packages"]
    assert told == {component["name"]: component["version"] for component in contents}
    linked = {component["name"] for component in contents if component["linked"]}
    assert linked > {"c-ares", "expat", "glibc", "jansson", "liburing", "openssl", "swift-log",
                     "swift-system", "util-linux"}
    assert {"e2fsprogs", "xfsprogs", "ca-certificates"} <= {*told}
    licences = {f"/usr/share/doc/{name}/copyright" for name in told}
    assert licences | {"/usr/share/common-licenses/GPL-2"} <= files
    # Each file belongs to the daemon or to a component, or describes a component.
    listed = {file for component in contents for file in component["files"]}
    unlisted = files - listed - {"config.json", f"/bin/{PLUGIN}", f"/etc/{PLUGIN}/build"}
    assert [file for file in unlisted if not file.startswith("/usr/share/")] == []
    assert listed <= files


def test_the_list_for_scanners_has_what_the_tarball_is_made_of(tmp_path):
    with tarfile.open(TARBALL) as tar:
        contents = json.load(tar.extractfile(f"rootfs/usr/share/{PLUGIN}/contents.json"))
    lists = [tmp_path / "one.spdx.json", tmp_path / "another.spdx.json"]
    for path in lists:
        subprocess.run([ROOT / "plugin" / "spdx.py", "--tarball", TARBALL, "--created", "1000000000",
                        "--output", path], check=True)
    assert lists[0].read_bytes() == lists[1].read_bytes()
    document = json.loads(lists[0].read_text())
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["creationInfo"]["created"] == "2001-09-09T01:46:40Z"
    plugin, *parts = document["packages"]
    assert plugin["checksums"][0]["checksumValue"] == hashlib.sha256(
        TARBALL.read_bytes()).hexdigest()
    assert {part["name"]: part["versionInfo"] for part in parts} == {
        component["name"]: component["version"] for component in contents}
    assert {link["relationshipType"] for link in document["relationships"]} == {
        "DESCRIBES", "STATIC_LINK", "CONTAINS"}


def test_the_tarball_holds_a_static_daemon_and_no_shell(host, tmp_path):
    with tarfile.open(TARBALL) as tar:
        names = tar.getnames()
        assert all(entry.uid == entry.gid == entry.mtime == 0 for entry in tar)
        daemon = tmp_path / "daemon"
        daemon.write_bytes(tar.extractfile(f"rootfs/bin/{PLUGIN}").read())
    assert [n for n in names if n.startswith("rootfs/bin/")] == [f"rootfs/bin/{PLUGIN}"]
    headers = subprocess.run(
        ["readelf", "--program-headers", "--wide", daemon], capture_output=True, check=True,
        text=True).stdout
    assert "INTERP" not in headers
    assert daemon.stat().st_size <= 14 << 20
    assert TARBALL.stat().st_size <= 12 << 20


def test_the_debug_build_also_logs_to_a_file_on_the_host(host, tmp_path):
    name, tarball = f"{PLUGIN}-debug", tmp_path / "debug.tar.gz"
    subprocess.run(
        [ROOT / "plugin" / "package.py", "--daemon", ROOT / ".build" / "release" / PLUGIN,
         "--version", "0", "--commit", "abc", "--debug", "--output", tarball], check=True)
    with tarfile.open(tarball) as tar:
        tar.extractall(tmp_path / "plugin")
    config = json.loads((tmp_path / "plugin" / "config.json").read_text())
    assert [m["source"] for m in config["mounts"] if m["name"] == "log"] == ["/var/log"]
    # Docker 20.10 rejects a second plugin with a byte-identical root file system.
    (tmp_path / "plugin" / "rootfs" / "etc" / "debug").touch()
    for command in adapting_commands(tmp_path / "plugin"):
        host.shell(command)
    host.engine.docker("plugin", "create", name, tmp_path / "plugin")
    host.engine.docker("plugin", "set", name, f"log.source={tmp_path}", f"state.source={tmp_path}",
                       "INSTANCE_ID=i-0123abcd", "REGION=us-east-1",
                       "AVAILABILITY_ZONE=us-east-1a")
    host.engine.docker("plugin", "enable", name)
    host.engine.docker("plugin", "rm", "--force", name)
    assert "listening" in (tmp_path / "polarity-ecs-ebs.log").read_text()


def test_an_idle_daemon_has_one_thread(host):
    host.engine.docker("plugin", "disable", "--force", PLUGIN)
    host.engine.docker("plugin", "enable", "--timeout", "120", PLUGIN)
    assert health(host)[0] == 200
    assert threads(host.engine.plugin_process()) == 1


def test_the_plugin_pins_no_container_s_file_system(host):
    """It sees the host's /var/lib, where Docker mounts the file systems of containers."""
    host.engine.docker("plugin", "disable", "--force", PLUGIN)
    sleep = ["run", "--detach", "--init", "--network", "none", "box", "sleep", "600"]
    containers = [host.engine.docker(*sleep).stdout.strip()]
    host.engine.docker("plugin", "enable", "--timeout", "120", PLUGIN)
    containers.append(host.engine.docker(*sleep).stdout.strip())
    assert engine.mounts_below(host.engine.lib) != []
    mountinfo = pathlib.Path(f"/proc/{host.engine.plugin_process()}/mountinfo").read_text()
    seen = [line for line in mountinfo.splitlines() if line.split()[4].startswith("/var/lib")]
    host.engine.docker("rm", "--force", *containers)
    # Private: it takes no part in what is mounted later.
    assert [(line.split()[4], line.split()[6]) for line in seen] == [("/var/lib", "-")]


def test_the_state_lies_on_the_host_and_is_root_s_alone(host, new_volume):
    volume = new_volume()
    host.create(volume)
    folder = host.engine.lib / PLUGIN
    assert folder.stat().st_mode & 0o777 == 0o700
    assert volume in host.remembered("volumes.json")
    host.engine.docker("volume", "rm", volume)


def test_volumes_survive_disabling_and_enabling_the_plugin(host, new_volume):
    volume = new_volume()
    host.create(volume)
    host.run(volume, "echo kept > /data/file")
    refused = host.engine.docker("plugin", "disable", PLUGIN, check=False)
    assert "in use" in refused.stderr
    host.engine.docker("plugin", "disable", "--force", PLUGIN)
    host.engine.docker("plugin", "enable", "--timeout", "120", PLUGIN)
    assert host.run(volume, "cat /data/file") == "kept\n"
    assert volume in host.engine.docker("volume", "ls", "--quiet").stdout.split()


def test_docker_logs_errors_as_errors_and_the_rest_as_information(host, new_volume):
    volume = new_volume()
    host.create(volume)
    host.simulator.fault("AttachVolume", "error", code="UnauthorizedOperation", status=403)
    with pytest.raises(engine.DockerError):
        host.run(volume, "true")
    host.simulator.clear_faults()
    assert host.run(volume, "echo fine") == "fine\n"

    def said(words):
        """Docker's level of the lines in which the plugin says that."""
        lines = [line for line in host.engine.log.read_text().splitlines()
                 if words in line and volume in line and "plugin=" in line]
        return {re.search(r"level=(\w+)", line)[1] for line in lines}

    host.simulator.wait_until(
        lambda _: said("info mounted") and said("error mount failed"), what="the log's lines")
    assert said("info mounted") == {"info"} and said("error mount failed") == {"error"}


def test_no_secret_reaches_the_log(host, new_volume):
    from simulator import SECRET_KEY
    host.run(new_volume(), "true")
    log = host.engine.log.read_text()
    assert SECRET_KEY not in log
    assert "X-aws-ec2-metadata-token" not in log
