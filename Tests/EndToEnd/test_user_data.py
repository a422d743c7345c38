"""Runs the example's user data and its AMI step, with a real Docker Engine and without AWS: `aws`
copies a file, or fails."""

import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import textwrap

import pytest

from host import ARCHITECTURE, ELSEWHERE, PLUGIN, ROOT

EXAMPLES = ROOT / "plugin"
NAME = f"{PLUGIN}.{ARCHITECTURE}.tar.gz"


def plain(_):
    return (EXAMPLES / "user-data.sh").read_text(encoding="utf-8")


def cloudformation(values):
    """The template's user data after Fn::Sub."""
    template = (EXAMPLES / "cloudformation.yaml").read_text(encoding="utf-8")
    block = re.search(r"Fn::Base64: !Sub \|\n((?: {12}.*\n|\n)+)", template)[1]
    names = {"Cluster": "cluster", "Bucket": "bucket", "Sha256": "sha256", "Settings": "settings"}
    return re.sub(r"\$\{(!?)(\w+)\}",
                  lambda match: f"${{{match[2]}}}" if match[1] else values[names[match[2]]],
                  textwrap.dedent(block))


def terraform(values):
    """The value of the expression in the launch template."""
    text = (EXAMPLES / "terraform" / "main.tf").read_text(encoding="utf-8")
    block = re.search(r'user_data = base64encode\(join\("\\n", \[\n(.*?)\n  \]\)\)', text, re.DOTALL)[1]
    assert block.splitlines()[-1].strip() == 'file("${path.module}/../user-data.sh"),'
    lines = [re.fullmatch(r'\s*"(.*)",', line)[1] for line in block.splitlines()[:-1]]
    names = {"aws_ecs_cluster.this.name": "cluster", "var.bucket": "bucket",
             "var.sha256": "sha256", "var.settings": "settings"}
    return "\n".join([*(re.sub(r"\$\{([\w.]+)\}", lambda match: values[names[match[1]]], line)
                        for line in lines), plain(values)])


@dataclasses.dataclass
class Boot:
    """An instance's first start."""
    machine: object
    folder: pathlib.Path
    tarball: pathlib.Path
    settings: str
    sha256: str = None

    def __post_init__(self):
        self.config = self.folder / "ecs.config"
        self.commands = self.folder / "bin"
        self.commands.mkdir()
        self.called = self.folder / "called"
        self.called.touch()
        self.sha256 = hashlib.sha256(self.tarball.read_bytes()).hexdigest()
        self.download()
        self.stub("sleep", "exit 0")
        self.stub("systemctl", "exit 0")

    def stub(self, name, script):
        """A command that notes how it was called."""
        path = self.commands / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.called}\n{script}\n')
        path.chmod(0o755)

    def download(self, failures=0):
        """From now on aws copies the tarball, after so many calls that fail."""
        self.called.write_text("")
        self.stub("aws", f'[ $(grep -c "^aws" {self.called}) -gt {failures} ] || exit 1\n'
                         f'cp {self.tarball} "$5"')

    def calls(self, command):
        return [line for line in self.called.read_text().splitlines() if line.startswith(command)]

    def run(self, form=plain):
        values = {"cluster": "my-cluster", "bucket": "my-bucket", "sha256": self.sha256,
                  "settings": self.settings, "tarball": f"s3://my-bucket/{NAME}"}
        script = form(values).replace("/etc/ecs/ecs.config", str(self.config))
        assert str(self.config) in script
        # The file alone is told by variables what an operator would write into it.
        told = values if form is plain else {}
        return self.bash(script, **told)

    def bash(self, script, **variables):
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, text=True, capture_output=True, timeout=120,
            stdin=subprocess.DEVNULL,
            env={**self.machine.engine.environment, **variables, "TMPDIR": str(self.folder),
                 "PATH": f"{self.commands}:{os.environ['PATH']}"})

    def plugins(self):
        return self.machine.engine.docker(
            "plugin", "ls", "--format", "{{.Name}} {{.Enabled}}").stdout.splitlines()

    def plugin_settings(self):
        return self.machine.engine.docker(
            "plugin", "inspect", "--format", "{{json .Settings.Env}}", PLUGIN).stdout


@pytest.fixture
def boot(machine, unpacked, tmp_path):
    tarball = tmp_path / NAME
    machine.shell(f"tar -czf {tarball} -C {unpacked('as-it-is')} .")
    settings = {**machine.simulator.environment(ELSEWHERE), **machine.settings}
    return Boot(machine, tmp_path, tarball,
                " ".join(f"{name}={value}" for name, value in settings.items()))


ENABLED = [f"{PLUGIN}:latest true"]


@pytest.mark.parametrize("form", [plain, cloudformation, terraform])
def test_it_joins_the_cluster_and_installs_the_plugin_once(boot, form):
    first = boot.run(form)
    assert first.returncode == 0, first.stderr
    assert boot.plugins() == ENABLED
    assert "DETACH_AFTER=1s" in boot.plugin_settings()
    again = boot.run(form)
    assert again.returncode == 0, again.stderr
    assert boot.plugins() == ENABLED
    assert boot.config.read_text() == "ECS_CLUSTER=my-cluster\n"
    assert [call.split()[:4] for call in boot.calls("aws")] == [
        ["aws", "s3", "cp", "--only-show-errors"]]
    # What was unpacked is gone.
    assert sorted(path.name for path in boot.folder.iterdir()) == sorted(
        ["bin", "called", "ecs.config", NAME])


def test_a_download_that_fails_is_tried_again(boot):
    boot.download(failures=2)
    done = boot.run()
    assert done.returncode == 0, done.stderr
    assert boot.plugins() == ENABLED
    assert (len(boot.calls("aws")), boot.calls("sleep")) == (3, ["sleep 2", "sleep 4"])


def test_without_a_download_the_instance_joins_without_the_plugin(boot):
    boot.download(failures=100)
    failed = boot.run()
    assert failed.returncode != 0
    assert f"is not installed: s3://my-bucket/{NAME} cannot be downloaded" in failed.stderr
    assert boot.config.read_text() == "ECS_CLUSTER=my-cluster\n"
    assert boot.plugins() == []


@pytest.mark.parametrize("form", [plain, cloudformation])
def test_another_file_than_the_one_that_was_meant_is_not_installed(boot, form):
    right, boot.sha256 = boot.sha256, "0" * 64
    failed = boot.run(form)
    assert failed.returncode != 0
    assert right in failed.stderr and boot.sha256 in failed.stderr
    assert boot.plugins() == []


def test_a_file_that_is_no_tarball_is_not_installed(boot):
    boot.tarball.write_text("<Error><Code>AccessDenied</Code></Error>")
    boot.sha256 = hashlib.sha256(boot.tarball.read_bytes()).hexdigest()
    failed = boot.run()
    assert failed.returncode != 0 and "cannot be unpacked" in failed.stderr
    assert boot.plugins() == []


def test_what_an_interrupted_run_has_left_is_finished(boot, unpacked):
    boot.machine.engine.docker("plugin", "create", PLUGIN, unpacked("left"))
    done = boot.run()
    assert done.returncode == 0, done.stderr
    assert boot.plugins() == ENABLED and boot.calls("aws") == []
    assert "DETACH_AFTER=1s" in boot.plugin_settings()


def test_a_plugin_that_does_not_start_is_told_of(boot):
    boot.settings += " TAKEOVER=wrong"
    failed = boot.run()
    assert failed.returncode != 0
    assert "does not start; its last line in 'journalctl -u docker' says why" in failed.stderr


def test_the_ami_step_installs_the_plugin_once(boot):
    script = (EXAMPLES / "ami-step.sh").read_text(encoding="utf-8")
    sums = boot.folder / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  {NAME}\n")
    failed = boot.bash(script)
    assert failed.returncode != 0 and "does not match SHA256SUMS" in failed.stderr
    assert boot.plugins() == []
    sums.write_text(f"{'0' * 64}  other.tar.gz\n{boot.sha256}  {NAME}\n")
    for _ in range(2):
        done = boot.bash(script)
        assert done.returncode == 0, done.stderr
        assert boot.plugins() == ENABLED
    assert boot.calls("systemctl")[-1] == "systemctl start docker"
