"""Starts and drives ec2-simulator for tests, the demo and the benchmarks. boto3 is loaded only on
request.

    with Simulator(instances=[instance("i-0aaaaaaaaaaaaaaa1")],
                   volumes=[volume("vol-0aaaaaaaaaaaaaaa1", content="xfs")]) as simulator:
        simulator.ec2().describe_volumes()
        simulator.control("POST", "/latency", {"device": 300})
        subprocess.run([daemon], env=simulator.environment("i-0aaaaaaaaaaaaaaa1"))
"""

import functools
import http.client
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
ZONE = REGION + "a"
ACCESS_KEY = "AKIDSIMULATOR0000001"
SECRET_KEY = "simulator/secret/key/0000000000000000001"


def executable():
    """The built simulator: EC2_SIMULATOR, otherwise a release build, otherwise a debug build."""
    if "EC2_SIMULATOR" in os.environ:
        return os.environ["EC2_SIMULATOR"]
    for configuration in ("release", "debug"):
        path = ROOT / ".build" / configuration / "ec2-simulator"
        if path.exists():
            return str(path)
    raise FileNotFoundError("ec2-simulator is not built: swift build --product ec2-simulator")


def instance(id, **fields):
    """An instance for the configuration; devPath and sysPath default to folders of its own."""
    return {"id": id, "type": "m6i.large", "availabilityZone": ZONE, "mode": "nitro",
            "imdsPort": 0, "state": "running", **fields}


def volume(id, content="blank", sizeMiB=320, **fields):
    """A volume for the configuration or POST /volumes; attachedTo={"instance": .., "device": ..}.

    320 MiB is sparse, and just above the minimum for mkfs.xfs.
    """
    return {"id": id, "sizeMiB": sizeMiB, "availabilityZone": ZONE, "content": content, **fields}


class ControlError(Exception):
    pass


class Simulator:
    """One running simulator. `directory` (made and removed here unless given) holds its state."""

    def __init__(self, instances=(), volumes=(), directory=None, **configuration):
        self.own_directory = directory is None
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix="ec2-simulator-"))
        self.configuration = {
            "stateDir": str(self.directory / "state"),
            "region": REGION,
            "ec2Port": 0,
            "instances": [self._with_paths(i) for i in instances],
            "volumes": list(volumes),
            "credentials": {"static": [
                {"accessKeyId": ACCESS_KEY, "secretAccessKey": SECRET_KEY}]},
            **configuration,
        }
        self.configuration_file = self.directory / "config.json"
        self.process = None
        self.socket_path = None

    def _with_paths(self, instance):
        base = self.directory / instance["id"]
        return {"devPath": str(base / "dev"), "sysPath": str(base / "sys"), **instance}

    # Life

    def start(self, timeout=60):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.configuration_file.write_text(json.dumps(self.configuration, indent=2))
        self.log = open(self.directory / "simulator.log", "ab")
        self.process = subprocess.Popen(
            [executable(), "serve", "--config", str(self.configuration_file)],
            stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL,
            # The rig handles an interrupt typed at the terminal, and stops the simulator last.
            process_group=0)
        line = self._first_line(timeout)
        if not line.startswith("ready "):
            code = self.process.poll()
            self.stop()
            raise RuntimeError(f"ec2-simulator did not start (exit {code}): {self.output()}")
        self.socket_path = line.split(" ", 1)[1].strip()
        try:
            state = self.state()
        except BaseException:
            self.stop()
            raise
        self.endpoint = state["endpoint"]
        self.ca_file = state["caFile"]
        return self

    def _first_line(self, timeout):
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        return self.process.stdout.readline().decode() if ready else ""

    def stop(self, timeout=30):
        """SIGTERM, and the exit code; leaves the directory. Safe to call twice."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.clean()
            raise
        finally:
            self.process.stdout.close()
            self.log.close()
            self.process = None
        return code

    def kill(self):
        """kill -9, as in a crash: what it created stays until clean() or the next start."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.process = None

    def clean(self):
        """Removes what a killed simulator left behind."""
        subprocess.run([executable(), "clean", "--config", str(self.configuration_file)],
                       check=True, timeout=60)

    def output(self):
        path = self.directory / "simulator.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.stop()
        finally:
            if self.own_directory:
                shutil.rmtree(self.directory, ignore_errors=True)

    # The control endpoint

    def control(self, method, path, body=None):
        """One call of the control endpoint; the parsed response."""
        connection = _UnixConnection(self.socket_path)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        parsed = json.loads(text) if text else {}
        if answer.status >= 300:
            raise ControlError(f"{method} {path}: {answer.status} {parsed.get('error', text)}")
        return parsed

    def state(self):
        return self.control("GET", "/state")

    def volume(self, id):
        return next(v for v in self.state()["volumes"] if v["id"] == id)

    def backing(self, id):
        """The sparse file that holds the volume's bytes."""
        return self.directory / "state" / "volumes" / id

    def instance(self, id):
        return next(i for i in self.state()["instances"] if i["id"] == id)

    def counters(self):
        return self.state()["counters"]

    def calls(self, action):
        """How often an EC2 action was called since the start or the last reset_counters()."""
        return self.counters()["calls"].get(action, 0)

    def reset_counters(self):
        self.control("POST", "/reset-counters")

    def events(self, since=0):
        """What happened, with CLOCK_MONOTONIC nanoseconds: [{"sequence", "ns", "event", ...}]."""
        return self.control("GET", f"/events?since={since}")["events"]

    def create_volume(self, id, **fields):
        return self.control("POST", "/volumes", volume(id, **fields))

    def fault(self, action, kind, **fields):
        """Adds a fault, for one time unless count= or probability= says otherwise."""
        self.control("POST", "/faults", {"action": action, "kind": kind, **fields})

    def clear_faults(self):
        self.control("DELETE", "/faults")

    def latency(self, **milliseconds):
        self.control("POST", "/latency", milliseconds)

    def wait_until(self, condition, timeout=60, what="condition", pause=0.01):
        """Polls `condition` (a function of this simulator) until it returns something true. With
        calls to EC2 in it, `pause` keeps them below EC2's request rate."""
        deadline = time.monotonic() + timeout
        while True:
            result = condition(self)
            if result:
                return result
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come true in {timeout} s: {self.state()}")
            time.sleep(pause)

    def wait_for_volume(self, id, state, timeout=60):
        return self.wait_until(lambda s: s.volume(id)["state"] == state, timeout, f"{id} {state}")

    # What its users need

    def environment(self, instance_id):
        """The settings with which the daemon runs as `instance_id` of this simulator."""
        described = self.instance(instance_id)
        return {
            "AWS_ENDPOINT_URL_EC2": self.endpoint,
            "AWS_CA_BUNDLE": self.ca_file,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": described["imdsEndpoint"],
            "DEV_PATH": described["devPath"],
            "SYS_PATH": described["sysPath"],
        }

    def ec2(self, access_key=ACCESS_KEY, secret_key=SECRET_KEY, token=None, attempts=1, **options):
        """A boto3 client that trusts the simulator's CA and by default never retries.

        Further options are those of botocore's Config.
        """
        from botocore.config import Config

        config = Config(**{"retries": {"total_max_attempts": attempts, "mode": "standard"},
                           "connect_timeout": 5, "read_timeout": 10, **options})
        return _session().client(
            "ec2", region_name=REGION, endpoint_url=self.endpoint, verify=self.ca_file,
            aws_access_key_id=access_key, aws_secret_access_key=secret_key,
            aws_session_token=token, config=config)


@functools.lru_cache
def _session():
    """One session for all clients: it keeps the description of the API, which takes long to
    load."""
    import boto3

    return boto3.session.Session()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)
