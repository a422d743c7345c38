"""Tests who may make calls: signatures, keys and clocks."""

import datetime
import os
import socket
import ssl
import urllib.error
import urllib.request

import boto3
import botocore.auth
import pytest
from botocore.exceptions import ClientError, SSLError
from conftest import FREE
from simulator import ACCESS_KEY, SECRET_KEY
from test_api import refusal


def test_a_wrong_secret_is_refused(simulator):
    ec2 = simulator.ec2(secret_key="wrong")
    code, status, _ = refusal(ec2.describe_volumes)
    assert (code, status) == ("SignatureDoesNotMatch", 403)


def test_an_unknown_key_is_refused(simulator):
    code, status, message = refusal(simulator.ec2(access_key="AKIDNOBODY").describe_volumes)
    assert (code, status) == ("AuthFailure", 401)
    assert message == "AWS was not able to validate the provided access credentials"


def test_a_token_that_does_not_belong_to_the_key_is_refused(simulator):
    assert refusal(simulator.ec2(token="forged").describe_volumes)[0] == "AuthFailure"


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_clock_that_is_off_by_more_than_five_minutes_is_refused(simulator, monkeypatch, minutes):
    class Skewed(datetime.datetime):
        @classmethod
        def utcnow(cls):
            return datetime.datetime.utcnow() + datetime.timedelta(minutes=minutes)

    class Module:
        datetime = Skewed

    ec2 = simulator.ec2()
    monkeypatch.setattr(botocore.auth, "datetime", Module)
    code, status, _ = refusal(ec2.describe_volumes)
    assert (code, status) == ("RequestExpired", 400)


def test_another_region_s_signature_is_refused(simulator):
    ec2 = boto3.client("ec2", region_name="us-east-1", endpoint_url=simulator.endpoint,
                       verify=simulator.ca_file, aws_access_key_id=ACCESS_KEY,
                       aws_secret_access_key=SECRET_KEY)
    assert refusal(ec2.describe_volumes)[0] == "SignatureDoesNotMatch"


def test_an_unsigned_request_is_refused(simulator):
    context = ssl.create_default_context(cafile=simulator.ca_file)
    url = f"{simulator.endpoint}/?Action=DescribeVolumes&Version=2016-11-15"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, context=context)
    assert caught.value.code == 403
    assert b"<Code>MissingAuthenticationToken</Code>" in caught.value.read()


def test_a_changed_body_is_refused(simulator):
    ec2 = simulator.ec2()
    ec2.meta.events.register("before-send.ec2.*", _send_changed(FREE))
    with pytest.raises(ClientError) as caught:
        ec2.describe_volumes(VolumeIds=[FREE])
    assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


def _send_changed(id):
    def change(request, **_):
        # The same length, so that only the signature can detect it.
        body = request.body
        body = body.encode() if isinstance(body, str) else body
        request.body = body.replace(id.encode(), id[:-1].encode() + b"9")

    return change


def test_a_client_that_does_not_know_the_authority_refuses_the_server(simulator):
    simulator.ca_file = True
    with pytest.raises(SSLError):
        simulator.ec2().describe_volumes()


def test_localhost_is_a_name_of_the_certificate(simulator):
    simulator.endpoint = simulator.endpoint.replace("127.0.0.1", "localhost")
    assert simulator.ec2().describe_volumes()["Volumes"]


def test_further_addresses_are_names_of_the_certificate(start):
    simulator = start(addresses=["10.0.2.2", "fd00::2"])
    port = int(simulator.endpoint.rsplit(":", 1)[1])
    context = ssl.create_default_context(cafile=simulator.ca_file)
    for address in ("127.0.0.1", "10.0.2.2", "fd00::2"):
        with (socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
              context.wrap_socket(connection, server_hostname=address)):
            pass


def test_an_address_that_is_none_is_refused(start):
    with pytest.raises(RuntimeError, match="addresses.*an IP address"):
        start(addresses=["10.0.2"])


def test_the_keys_are_readable_for_root_alone(simulator):
    state = simulator.directory / "state"
    keys = list(state.glob("*-key.pem"))
    assert len(keys) == 2
    assert all(os.stat(key).st_mode & 0o777 == 0o600 for key in keys)


def test_a_restart_keeps_the_authority(start):
    simulator = start()
    before = open(simulator.ca_file).read()
    simulator.stop()
    simulator.start()
    assert open(simulator.ca_file).read() == before
