"""Tests the plugin under a name that its user chooses: with a tag, with an alias, upgraded, and two
versions side by side. The daemon's messages name the driver in a form that Docker accepts."""

import contextlib
import json

import pytest

import engine
from host import ELSEWHERE, PLUGIN
from registry import Registry
from test_restarts import said, wait_until


@pytest.fixture
def make(unpacked):
    """Makes the folder of a version of the plugin."""
    def version(number):
        folder = unpacked(number)
        (folder / "rootfs/etc" / PLUGIN / "build").write_text(
            f"BUILD_VERSION={number}\nBUILD_COMMIT=abc\n")
        return folder
    return version


def settings_of(machine, **more):
    values = {**machine.simulator.environment(ELSEWHERE), **machine.settings, **more}
    return [f"{name}={value}" for name, value in values.items()]


def create(machine, name, folder, **settings):
    machine.engine.docker("plugin", "create", name, folder)
    machine.engine.docker("plugin", "set", name, *settings_of(machine, **settings))


def enable(machine, name):
    """Docker 20.10 rejects this once ("id already in use") if the plugin has just failed to start,
    and then starts it by itself."""
    def enabled():
        machine.engine.docker("plugin", "enable", "--timeout", "120", name, check=False)
        return machine.engine.docker(
            "plugin", "inspect", "--format", "{{.Enabled}}", name).stdout == "true\n"
    wait_until(enabled, what=f"enabling {name}")


def ask(machine, name, path, **body):
    """The response of the plugin with that name to a call."""
    identity = identity_of(machine, name)
    socket = f"/run/docker/plugins/{identity}/pl-ebs.sock"
    with contextlib.closing(engine.UnixConnection(socket, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(body))
        return json.loads(connection.getresponse().read())


def identity_of(machine, name):
    return machine.engine.docker("plugin", "inspect", "--format", "{{.ID}}", name).stdout.strip()


def run(machine, driver, volume, script, **how):
    return machine.engine.docker(
        "run", "--rm", "--network", "none", "--volume-driver", driver, "-v", f"{volume}:/data",
        "box", "sh", "-c", script, **how)


def hint_of(machine, driver, volume):
    """The command that the daemon suggests if a volume is mounted that was not created."""
    error = ask(machine, driver, "/VolumeDriver.Mount", Name=volume, ID="a")["Err"]
    assert "; run docker volume create -d " in error, error
    return error.split("; run ")[1]


def test_a_plugin_with_a_tag_is_called_by_it(machine, make, new_volume):
    name, volume = f"{PLUGIN}:1.2.3", new_volume()
    create(machine, name, make("1.2.3"), TAKEOVER="wrong")
    refused = machine.engine.docker("plugin", "enable", name, check=False)
    assert refused.returncode != 0
    [line] = {line for line in machine.engine.plugin_log() if f"{name} does not start" in line}
    assert line.startswith(f"{name} does not start: TAKEOVER: the policies are ")
    command = line.split("'")[1]
    assert command == f"docker plugin set {name} SETTING=VALUE"

    machine.shell(command.replace("SETTING=VALUE", "TAKEOVER=unless-mounted"))
    enable(machine, name)
    assert said(machine, "listening", f"driver={name} ", "version=1.2.3")
    hint = hint_of(machine, name, volume)
    assert hint == f"docker volume create -d {name} {volume}"
    machine.shell(hint)
    assert run(machine, name, volume, "echo hello > /data/file; cat /data/file").stdout == "hello\n"


def test_a_plugin_whose_name_cannot_be_seen_is_called_by_its_id(
        machine, make, new_volume, tmp_path):
    volume = new_volume()
    # So the plugin does not see the engine's data root, as if that were not below /var/lib.
    create(machine, "ebs", make("1"), **{"state.source": tmp_path})
    enable(machine, "ebs")
    hint = hint_of(machine, "ebs", volume)
    assert hint == f"docker volume create -d {identity_of(machine, 'ebs')[:12]} {volume}"
    # The engine accepts it as the driver's name, and records the name itself.
    machine.shell(hint)
    assert machine.engine.docker(
        "volume", "inspect", "--format", "{{.Driver}}", volume).stdout == "ebs:latest\n"


def test_an_alias_is_upgraded_from_a_registry(machine, make, new_volume):
    """`docker plugin upgrade` keeps name, settings and volumes, and the new version says what it
    is."""
    volume = new_volume()
    with Registry() as registry:
        first, second = (registry.add(f"team/{PLUGIN}:{n}", make(n)) for n in ("1.0", "2.0"))
        machine.engine.docker("plugin", "install", "--alias", "ebs", "--grant-all-permissions",
                              first, *settings_of(machine, FS_TYPE="ext4"))
        assert ask(machine, "ebs", "/health")["version"] == "1.0"
        hint = hint_of(machine, "ebs", volume)
        assert hint == f"docker volume create -d ebs {volume}"
        machine.shell(hint)
        run(machine, "ebs", volume, "grep -q ' /data ext4 ' /proc/mounts && echo kept > /data/file")
        container = machine.engine.docker(
            "run", "--detach", "--init", "--network", "none", "-v", f"{volume}:/data", "box",
            "sleep", "600").stdout.strip()

        machine.engine.docker("plugin", "disable", "--force", "ebs")
        machine.engine.docker("plugin", "upgrade", "--grant-all-permissions",
                              "--skip-remote-check", "ebs", second)
        enable(machine, "ebs")
    assert ask(machine, "ebs", "/health")["version"] == "2.0"
    assert machine.remembered("volumes.json") == [volume]
    assert run(machine, "ebs", volume, "cat /data/file").stdout == "kept\n"
    assert machine.engine.docker("exec", container, "cat", "/data/file").stdout == "kept\n"


def test_two_versions_side_by_side_take_turns(machine, make, new_volume):
    """One is enabled. Docker ties a volume to the name of its driver until Docker starts again."""
    old, new, volume = f"{PLUGIN}:1.0", f"{PLUGIN}:2.0", new_volume()
    create(machine, old, make("1.0"))
    create(machine, new, make("2.0"))
    enable(machine, old)
    machine.engine.docker("volume", "create", "-d", old, volume)
    run(machine, old, volume, "echo kept > /data/file")

    machine.engine.docker("plugin", "enable", new, check=False)
    line = [line for line in machine.engine.plugin_log() if "does not start" in line][-1]
    assert line.startswith(f"{new} does not start: ")
    assert f"another daemon uses it: the plugin {old}, version 1.0, " in line
    assert run(machine, old, volume, "cat /data/file").stdout == "kept\n"

    for before, after in ((old, new), (new, old)):
        machine.engine.docker("plugin", "disable", "--force", before)
        enable(machine, after)
        # The plugin knows the volume at once.
        listed = ask(machine, after, "/VolumeDriver.List")["Volumes"]
        assert [entry["Name"] for entry in listed] == [volume]
        refused = run(machine, after, volume, "true", check=False)
        assert refused.returncode != 0 and f"in driver '{before}'" in refused.stderr
        machine.engine.stop_daemon()
        machine.engine.start_daemon()
        assert run(machine, after, volume, "cat /data/file").stdout == "kept\n"
        assert machine.engine.docker(
            "volume", "inspect", "--format", "{{.Driver}}", volume).stdout == f"{after}\n"
