"""IMDSv2, judged by botocore's own client and credential chain."""

import json
import socket
import urllib.error
import urllib.request

import botocore.session
import pytest
from botocore.utils import InstanceMetadataFetcher, InstanceMetadataRegionFetcher
from conftest import FREE, HERE
from simulator import REGION, ZONE
from test_api import refusal

TTL = "X-aws-ec2-metadata-token-ttl-seconds"


@pytest.fixture
def imds(simulator):
    return simulator.instance(HERE)["imdsEndpoint"]


def fetch(url, method="GET", **headers):
    request = urllib.request.Request(
        url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def token(imds, seconds=60):
    status, text = fetch(imds + "/latest/api/token", "PUT", **{TTL: str(seconds)})
    assert status == 200
    return {"X-aws-ec2-metadata-token": text}


def test_the_identity_document_tells_the_instance(imds):
    status, text = fetch(imds + "/latest/dynamic/instance-identity/document", **token(imds))
    assert status == 200
    document = json.loads(text)
    assert document["instanceId"] == HERE
    assert document["availabilityZone"] == ZONE
    assert document["region"] == REGION
    assert document["instanceType"] == "m6i.large"
    assert document["architecture"] == "x86_64"


def test_nothing_is_told_without_a_token(imds):
    path = imds + "/latest/dynamic/instance-identity/document"
    assert fetch(path)[0] == 401
    assert fetch(path, X_aws_ec2_metadata_token="made up")[0] == 401


def test_a_token_is_given_only_for_a_life_in_range_and_without_a_proxy(imds):
    url = imds + "/latest/api/token"
    assert fetch(url, "PUT")[0] == 400
    assert fetch(url, "PUT", **{TTL: "21601"})[0] == 400
    assert fetch(url, "PUT", **{TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403
    assert fetch(url)[0] == 405


def test_a_token_ends_with_its_life(simulator, imds):
    header = token(imds, 1)
    path = imds + "/latest/meta-data/instance-id"
    assert fetch(path, **header) == (200, HERE)
    simulator.wait_until(lambda _: fetch(path, **header)[0] == 401)


def test_an_unknown_path_is_not_found(imds):
    assert fetch(imds + "/latest/meta-data/nonsense", **token(imds))[0] == 404


def test_botocore_finds_credentials_and_calls_with_them(simulator, imds, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    session = botocore.session.Session()
    assert session.get_credentials().method == "iam-role"
    ec2 = session.create_client(
        "ec2", region_name=REGION, endpoint_url=simulator.endpoint, verify=simulator.ca_file)
    assert ec2.describe_volumes(VolumeIds=[FREE])["Volumes"][0]["VolumeId"] == FREE


def test_botocore_finds_the_region(imds):
    fetcher = InstanceMetadataRegionFetcher(base_url=imds)
    assert fetcher.retrieve_region() == REGION


def role_credentials(imds):
    fetcher = InstanceMetadataFetcher(base_url=imds, num_attempts=1)
    return fetcher.retrieve_iam_role_credentials()


def client_with(simulator, keys):
    return simulator.ec2(keys["access_key"], keys["secret_key"], keys["token"])


def test_revoked_credentials_are_refused_and_new_ones_given(simulator, imds):
    old = role_credentials(imds)
    client_with(simulator, old).describe_volumes()
    assert role_credentials(imds) == old
    simulator.control("POST", "/credentials", {"revoke": True})
    assert refusal(client_with(simulator, old).describe_volumes)[0] == "RequestExpired"
    new = role_credentials(imds)
    assert new["access_key"] != old["access_key"]
    client_with(simulator, new).describe_volumes()


def test_rotated_credentials_stay_good_until_they_expire(simulator, imds):
    old = role_credentials(imds)
    simulator.control("POST", "/credentials", {"rotate": True})
    assert role_credentials(imds)["access_key"] != old["access_key"]
    client_with(simulator, old).describe_volumes()


def test_faults_strike_the_path_they_name(simulator, imds):
    header = token(imds)
    path = "/latest/meta-data/instance-id"
    simulator.fault("IMDS", "error", status=503, path=path)
    assert fetch(imds + "/latest/meta-data/instance-type", **header)[0] == 200
    assert fetch(imds + path, **header)[0] == 503
    assert fetch(imds + path, **header) == (200, HERE)


def test_a_stopped_instance_answers_503(simulator, imds):
    simulator.control("POST", "/instances", {"id": HERE, "state": "stopped"})
    assert fetch(imds + "/latest/api/token", "PUT", **{TTL: "60"})[0] == 503


def test_a_lost_answer_is_an_end_of_stream_and_a_reset_is_a_reset(simulator, imds):
    def answer():
        address = imds.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=60) as client:
            client.sendall(b"GET /latest/ HTTP/1.1\r\nHost: imds\r\n\r\n")
            return client.recv(1)

    simulator.fault("IMDS", "lostBefore")
    assert answer() == b""
    simulator.fault("IMDS", "reset")
    with pytest.raises(ConnectionResetError):
        answer()
    assert answer() == b"H"
