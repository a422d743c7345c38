"""What README.md and the examples say is what the plugin has. Needs neither root nor Docker."""

import json
import re
import subprocess

from host import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIG = json.loads((ROOT / "plugin" / "config.json").read_text(encoding="utf-8"))
# For tests and for the build: no operator sets them.
UNDOCUMENTED = {"BUILD_VERSION", "BUILD_COMMIT", "BUILD_CONTENTS", "SOCK_PATH", "DEV_PATH", "SYS_PATH",
                "MOUNT_PATH"}


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]


def test_the_readme_names_every_setting_and_no_other():
    rows = [line.split("|")[1] for line in section("Settings").splitlines()
            if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row)}
    assert documented == {variable["name"] for variable in CONFIG["env"]} - UNDOCUMENTED


def test_every_setting_but_the_build_s_can_be_set():
    for variable in CONFIG["env"]:
        settable = not variable["name"].startswith("BUILD_")
        assert variable.get("settable", []) == (["value"] if settable else []), variable


def test_the_daemon_reads_every_setting_that_the_plugin_has():
    sources = "\n".join(path.read_text(encoding="utf-8")
                        for path in (ROOT / "Sources").rglob("*.swift"))
    assert [v["name"] for v in CONFIG["env"] if f'"{v["name"]}"' not in sources] == []


def test_the_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_targets_that_the_readme_names_are_in_the_makefile():
    targets = set(re.findall(r"(?:`|^    )make\s([a-z0-9-]+)", README, re.MULTILINE))
    assert {"demo", "test", "tar-amd64"} <= targets
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_the_cloudformation_example_permits_what_the_policy_does():
    policy = json.loads((ROOT / "plugin" / "iam-policy.json").read_text(encoding="utf-8"))
    wanted = {action for statement in policy["Statement"] for action in statement["Action"]}
    template = (ROOT / "plugin" / "cloudformation.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r'"(ec2:\w+)"', template)) == wanted
