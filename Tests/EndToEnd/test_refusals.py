"""Tests what is rejected: a clear error in docker's own output, and nothing is changed."""

import pathlib

import pytest

from host import HERE, PLUGIN


@pytest.fixture
def refused(host):
    """Runs docker, which must fail with an error that says why, and change nothing in EC2 or
    here."""
    def check(*arguments, words):
        # What earlier tests have used is detached in the background.
        host.simulator.wait_until(nothing_attached, what="the end of earlier detachments")
        host.simulator.reset_counters()
        mounts = host.mounts("")
        result = host.engine.docker(*arguments, check=False)
        assert result.returncode != 0
        for word in words:
            assert word in result.stderr, result.stderr
        calls = host.simulator.counters()["calls"]
        assert not set(calls) & {"AttachVolume", "DetachVolume", "CreateTags"}, calls
        assert host.mounts("") == mounts
    return check


def nothing_attached(simulator):
    return not any(attachment["instance"] == HERE for volume in simulator.state()["volumes"]
                   for attachment in volume["attachments"])


def run_arguments(volume):
    return ("run", "--rm", "--network", "none", "--volume-driver", PLUGIN, "-v",
            f"{volume}:/data", "box", "true")


def test_a_volume_of_another_zone(new_volume, refused):
    volume = new_volume(availabilityZone="eu-central-1b")
    words = [volume, "eu-central-1b", "eu-central-1a"]
    refused("volume", "create", "-d", PLUGIN, volume, words=words)
    refused(*run_arguments(volume), words=words)


def test_a_volume_that_does_not_exist(refused):
    volume = "vol-0dead0000dead0000"
    refused("volume", "create", "-d", PLUGIN, volume, words=[volume, "no such volume"])
    refused(*run_arguments(volume), words=[volume, "no such volume"])


@pytest.mark.parametrize("name", [
    "../x", "..", "vol-", "vol-0123", "vol-0123456789ABCDEF0", "vol-0123456789abcdef0/x", "x",
    pytest.param("v" * 300, id="300 characters"),
])
def test_a_malformed_name(host, refused, name):
    before = folders_of_the_plugin(host)
    refused("volume", "create", "-d", PLUGIN, name, words=["vol-"])
    assert folders_of_the_plugin(host) == before
    assert host.engine.docker("volume", "ls", "--quiet").stdout.split().count(name) == 0


def test_an_empty_name(host, refused):
    # Docker makes up a name of 64 digits, which is no volume's id.
    refused("volume", "create", "-d", PLUGIN, words=["vol-"])


def test_an_unknown_option_is_refused_with_the_known_ones(new_volume, refused):
    refused("volume", "create", "-d", PLUGIN, "-o", "colour=blue", new_volume(),
            words=["colour", "read-only"])


def test_a_volume_with_a_partition_table_is_left_as_it_is(host, new_volume):
    volume = new_volume(content="partitioned")
    before = first_mebibyte(host, volume)
    result = host.engine.docker(*run_arguments(volume), check=False)
    assert result.returncode != 0
    assert volume in result.stderr
    assert "partition" in result.stderr or "dos" in result.stderr or "gpt" in result.stderr
    host.simulator.wait_for_volume(volume, "available", timeout=90)
    assert first_mebibyte(host, volume) == before
    assert host.mounts(volume) == []


def first_mebibyte(host, volume):
    with open(host.simulator.backing(volume), "rb") as file:
        return file.read(1 << 20)


def folders_of_the_plugin(host):
    return sorted(pathlib.Path(f"{host.engine.root}/plugins").glob("*/propagated-mount/*"))


def test_a_refusal_by_ec2_is_told_in_its_words(host, new_volume):
    volume = new_volume()
    host.create(volume)
    host.simulator.fault("AttachVolume", "error", code="UnauthorizedOperation",
                         message="You are not authorized to perform this operation.", status=403)
    result = host.engine.docker(*run_arguments(volume), check=False)
    host.simulator.clear_faults()
    assert result.returncode != 0
    for word in [volume, HERE, "UnauthorizedOperation"]:
        assert word in result.stderr, result.stderr
    assert host.run(volume, "echo fine") == "fine\n"
