"""Checks that README.md and the examples agree with the plugin. Needs neither root nor Docker."""

import json
import re
import subprocess

import yaml

from host import PLUGIN, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIG = json.loads((ROOT / "plugin" / "config.json").read_text(encoding="utf-8"))
# Only for tests; operators do not set them.
UNDOCUMENTED = {"SOCK_PATH", "DEV_PATH", "SYS_PATH", "MOUNT_PATH"}


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]


def test_the_readme_names_every_setting_and_no_other():
    rows = [line.split("|")[1] for line in section("Settings").splitlines()
            if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row)}
    assert documented == {variable["name"] for variable in CONFIG["env"]} - UNDOCUMENTED


def test_every_setting_can_be_set():
    for variable in CONFIG["env"]:
        assert variable.get("settable") == ["value"], variable


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


class Template(yaml.SafeLoader):
    """Reads CloudFormation's short forms as their texts, for an arbitrary place."""


PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "*", "AWS::AccountId": "*"}
Template.add_constructor("!Sub", lambda _, node: re.sub(
    r"\$\{([\w:]+)\}", lambda match: PSEUDO.get(match[1], match[0]), node.value))
Template.add_constructor("!Ref", lambda _, node: node.value)
Template.add_constructor("!GetAtt", lambda _, node: node.value)
CLOUDFORMATION = yaml.load((ROOT / "plugin" / "cloudformation.yaml").read_text("utf-8"), Template)
TERRAFORM = (ROOT / "plugin" / "terraform" / "main.tf").read_text(encoding="utf-8")


def test_the_examples_permit_what_the_policy_does():
    policy = json.loads((ROOT / "plugin" / "iam-policy.json").read_text(encoding="utf-8"))

    def values(value):
        return [value] if isinstance(value, str) else value

    def statements(policy):
        return [{name: values(value) if name in ("Action", "Resource") else value
                 for name, value in statement.items() if name != "Sid"}
                for statement in policy["Statement"]]

    [inline] = [policy["PolicyDocument"]
                for policy in CLOUDFORMATION["Resources"]["InstanceRole"]["Properties"]["Policies"]
                if policy["PolicyName"] == PLUGIN]
    assert statements(inline) == statements(policy)
    # Terraform uses the file itself.
    assert 'policy = replace(file("${path.module}/../iam-policy.json"), "arn:aws:",' in TERRAFORM


def test_the_examples_require_imdsv2_and_use_gp3():
    data = CLOUDFORMATION["Resources"]["Instances"]["Properties"]["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    [root] = data["BlockDeviceMappings"]
    assert (root["DeviceName"], root["Ebs"]["VolumeType"]) == ("/dev/xvda", "gp3")
    assert CLOUDFORMATION["Resources"]["Volume"]["Properties"]["VolumeType"] == "gp3"
    assert re.search(r'metadata_options \{\s+http_tokens += "required"', TERRAFORM)
    assert re.search(r'device_name = "/dev/xvda"\s+ebs \{\s+volume_type = "gp3"', TERRAFORM)
    assert re.search(r'resource "aws_ebs_volume" "data" \{[^}]+\btype += "gp3"', TERRAFORM)


def test_terraform_leaves_the_plugin_s_tags():
    assert re.search(r'ignore_tags \{\s+key_prefixes = \["polarity-ecs-ebs-plugin:"\]', TERRAFORM)
