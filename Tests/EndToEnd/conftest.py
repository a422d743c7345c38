import itertools
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Rig"))
sys.dont_write_bytecode = True

import pytest  # noqa: E402

import engine  # noqa: E402
import host as rig  # noqa: E402

# An unused volume is detached soon, so that a test can observe it.
SETTINGS = {"DETACH_AFTER": "1s", "LOG_LEVEL": "debug"}


@pytest.fixture(scope="session")
def host():
    """One instance with the plugin for all tests; each test uses its own volumes."""
    reason = rig.why_unavailable()
    if reason:
        pytest.skip(reason)
    engine.interrupt_on_signals()
    running = rig.Host(settings=SETTINGS)
    with running:
        running.install()
        running.engine.import_image("seeded", {"data/seed": "from the image\n"})
        yield running
    assert running.leftovers() == []


@pytest.fixture(scope="module")
def machine(host):
    """The other instance, with its own engine and without the plugin, which the tests install."""
    with rig.Instance(host.simulator, rig.ELSEWHERE, SETTINGS) as machine:
        yield machine
    assert machine.leftovers() == []


@pytest.fixture
def unpacked(machine):
    """Unpacks the plugin's tarball into a folder of the engine's; its path. After the test,
    everything that was installed on the machine is removed, and Docker forgets its volumes."""
    made = []

    def unpack(name):
        folder = machine.engine.directory / f"unpacked-{name}"
        folder.mkdir()
        made.append(folder)
        machine.shell(f"tar -xzf {rig.TARBALL} -C {folder}")
        for command in rig.adapting_commands(folder):
            machine.shell(command)
        # By default, it is the folder that contains the engine's data root, as on a host.
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"/var/lib"', f'"{machine.engine.lib}"', 1))
        return folder
    yield unpack
    docker = machine.engine.docker
    for listed, removed in (("ps --all", "rm --force"), ("volume ls", "volume rm"),
                            ("plugin ls", "plugin rm --force")):
        for found in docker(*listed.split(), "--quiet").stdout.split():
            docker(*removed.split(), found)
    for folder in [*made, machine.engine.lib / rig.PLUGIN]:
        shutil.rmtree(folder, ignore_errors=True)
    # Docker forgets the volumes of a removed driver only when it starts.
    machine.engine.stop_daemon()
    machine.engine.start_daemon()


@pytest.fixture(scope="session")
def volume_ids():
    return (f"vol-{number:017x}" for number in itertools.count(0x1E2E00000001))


@pytest.fixture
def new_volume(host, volume_ids):
    """Makes a volume in EC2; its id."""
    def make(**fields):
        volume = next(volume_ids)
        host.simulator.create_volume(volume, **fields)
        return volume
    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Shows the output of the daemon after a failed test."""
    report = (yield).get_result()
    running = item.funcargs.get("host") if hasattr(item, "funcargs") else None
    if report.failed and running is not None and running.engine.log.exists():
        lines = "\n".join(running.engine.plugin_log()[-40:])
        report.sections.append(("the daemon's last lines", lines))
