import itertools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Rig"))
sys.dont_write_bytecode = True

import pytest  # noqa: E402

import engine  # noqa: E402
import host as rig  # noqa: E402

# A volume that nobody uses is detached soon, so that a test can see it.
SETTINGS = {"DETACH_AFTER": "1s", "LOG_LEVEL": "debug"}


@pytest.fixture(scope="session")
def host():
    """One instance with the plugin for all tests; each test uses volumes of its own."""
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
    """A failed test shows what the daemon has said meanwhile."""
    report = (yield).get_result()
    running = item.funcargs.get("host") if hasattr(item, "funcargs") else None
    if report.failed and running is not None and running.engine.log.exists():
        lines = "\n".join(running.engine.plugin_log()[-40:])
        report.sections.append(("the daemon's last lines", lines))
