"""What botocore, an independent AWS client, makes of random requests and answers.

    botocore_judge.py requests|answers SEED COUNT

Writes a JSON document a line: a request and how botocore signs it; or an answer of EC2 and what
botocore reads in it, `null` where something is missing by which a volume's fate is decided.
"""

import datetime
import json
import random
import sys
from urllib.parse import quote
from xml.sax.saxutils import escape

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.loaders
import botocore.model
import botocore.parsers

UNRESERVED = "abcXYZ0189-._~"
RESERVED = " !#$&'()*+,/:;=?@[]%\"<>^`{|}\\"
FOREIGN = "äßé日本\u00a0😀"


class Chance(random.Random):
    def often(self, share):
        return self.random() < share

    def text(self, alphabet, most, least=0):
        return "".join(self.choice(alphabet) for _ in range(self.randint(least, most)))

    def hexadecimal(self, digits):
        return f"{self.getrandbits(4 * digits):0{digits}x}"


# Requests


def path_of(chance):
    """As a request line has it, mostly encoded, with segments that are to be resolved."""
    if chance.often(0.1):
        return ""
    segments = []
    for _ in range(chance.randint(0, 5)):
        text = chance.text(UNRESERVED + RESERVED.replace("/", "") + FOREIGN, 8)
        raw = chance.text(UNRESERVED + " !$&'()*+,:;=@" + FOREIGN, 8)
        segments.append(chance.choice([".", "..", "", quote(text, safe=""), raw]))
    return "/" + "/".join(segments)


def query_of(chance):
    """A query as a request line has it, and the parameters that it means."""
    parameters, written = [], []
    names = [chance.text(UNRESERVED + RESERVED + FOREIGN, 6, 1) for _ in range(3)]
    for _ in range(chance.choice([0, 0, 1, 2, 5])):
        name, value = chance.choice(names), chance.text(UNRESERVED + RESERVED + FOREIGN, 10)
        parameters.append((name, value))
        written.append(encoded(chance, name) + ("=" + encoded(chance, value) if value or
                                                chance.often(0.5) else ""))
    return "&".join(written), parameters


def encoded(chance, text):
    """One of the ways to write it: some encode more than they need to, or in lower case."""
    style = chance.choice(["strict", "lower", "all", "lax"])
    if style == "all":
        return "".join(f"%{byte:02X}" for byte in text.encode())
    if style == "lax":
        return quote(text, safe="!$'()*+,/:;?@")
    strict = quote(text, safe="-_.~")
    if style == "lower":
        return "".join(part if i == 0 else "%" + part[:2].lower() + part[2:]
                       for i, part in enumerate(strict.split("%")))
    return strict


def headers_of(chance):
    headers = [("Host", chance.choice(["ec2.eu-west-1.amazonaws.com", "localhost:8443", "[::1]:80"]))]
    names = ["Content-Type", "Accept", "X-Amz-Target", "x-amz-meta-" + chance.text("abc", 3, 1),
             "My-Header1", "Zeta", "A"]
    for name in chance.sample(names, chance.randint(0, len(names))):
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            value = chance.text(UNRESERVED + RESERVED + "   \t" + "äé日", 20)
            headers.append((chance.choice([name, name.lower(), name.upper()]), value))
    chance.shuffle(headers)
    return headers


def signed_request(chance):
    path, (query, parameters), headers = path_of(chance), query_of(chance), headers_of(chance)
    method = chance.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
    body = chance.text(UNRESERVED + RESERVED + FOREIGN, chance.choice([0, 0, 1, 55, 56, 64, 1000]))
    region = chance.choice(["us-east-1", "eu-west-1", "us-gov-west-1", "cn-north-1", "mars-1"])
    service = chance.choice(["ec2", "service", "sts"])
    time = chance.choice([0, 951782400, 4102444799, chance.randrange(4102444800)])
    keys = botocore.credentials.Credentials(
        "AK" + chance.text("ABCXYZ0189", 18, 14), chance.text(UNRESERVED + "/+=", 40, 1),
        chance.text(UNRESERVED + "/+=", 400, 1) if chance.often(0.5) else None)
    request = botocore.awsrequest.AWSRequest(
        method, "https://host" + path.replace("#", "%23"), data=body.encode(), params=parameters)
    for name, value in headers:
        request.headers[name] = value
    canonical, authorization = sign(request, keys, service, region, time)
    return {
        "method": method, "path": path, "query": query, "headers": headers, "body": body,
        "region": region, "service": service, "time": time, "accessKey": keys.access_key,
        "secretKey": keys.secret_key, "token": keys.token, "authorization": authorization,
        "canonical": canonical}


def sign(request, keys, service, region, time):
    """The canonical request, and the Authorization header of a request that is signed at that time.

    These are the steps of SigV4Auth.add_auth, which knows no time but the present.
    """
    signer = botocore.auth.SigV4Auth(keys, service, region)
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=time)
    request.context["timestamp"] = moment.strftime(botocore.auth.SIGV4_TIMESTAMP)
    signer._modify_request_before_signing(request)
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    return canonical, request.headers["Authorization"]


# Answers

# What decides, with the values that these tests give it: by structure and member.
VALUES = {
    ("Volume", "VolumeId"): lambda c: "vol-" + c.hexadecimal(c.choice([8, 17])),
    ("Volume", "Size"): lambda c: str(c.choice([0, 1, 8, 65536])),
    ("Volume", "State"): lambda c: c.choice(
        ["creating", "available", "in-use", "deleting", "deleted", "error", "dreaming"]),
    ("VolumeAttachment", "VolumeId"): lambda c: "vol-" + c.hexadecimal(17),
    ("VolumeAttachment", "InstanceId"): lambda c: c.choice(
        ["i-" + c.hexadecimal(8), "i-" + c.hexadecimal(17), "i-none", "I-00000000"]),
    ("VolumeAttachment", "State"): lambda c: c.choice(
        ["attaching", "attached", "detaching", "detached", "busy", "dreaming"]),
    ("Instance", "InstanceId"): lambda c: "i-" + c.hexadecimal(c.choice([8, 17])),
    ("InstanceState", "Name"): lambda c: c.choice(
        ["pending", "running", "shutting-down", "terminated", "stopping", "stopped", "dreaming"]),
    ("EbsInstanceBlockDevice", "VolumeId"): lambda c: c.choice(
        ["vol-" + c.hexadecimal(17), "vol-" + c.hexadecimal(8), "vol-", "disk"]),
    ("InstanceTypeInfo", "InstanceType"): lambda c: c.choice(["m5d.large", "m5.large", "t3.nano"]),
    ("InstanceTypeInfo", "Hypervisor"): lambda c: c.choice(["nitro", "xen"]),
    ("EbsInfo", "MaximumEbsAttachments"): lambda c: str(c.choice([1, 28, 128])),
    ("EbsInfo", "AttachmentLimitType"): lambda c: c.choice(["shared", "dedicated"]),
    ("DiskInfo", "Count"): lambda c: str(c.randint(0, 24)),
}
# Where these stand, an answer has mostly everything that decides.
ALWAYS = {
    "Volumes", "Reservations", "Instances", "InstanceTypes", "AvailabilityZone", "Attachments",
    "Tags", "Placement", "BlockDeviceMappings", "NetworkInterfaces", "Ebs", "EbsInfo", "Key",
    "InstanceStorageInfo", "Disks", "DeviceName"}
# Newer than some botocore that these tests meet.
NEWER = {"EbsInfo": {
    "MaximumEbsAttachments": {"shape": "Integer", "locationName": "maximumEbsAttachments"},
    "AttachmentLimitType": {"shape": "String", "locationName": "attachmentLimitType"}}}


def service_model():
    document = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    for shape, members in NEWER.items():
        document["shapes"][shape]["members"] = {**members, **document["shapes"][shape]["members"]}
    return botocore.model.ServiceModel(document)


class Writer:
    """Writes an answer as the model describes it, in one of the ways that XML allows."""

    def __init__(self, chance):
        self.chance = chance
        self.prefix = chance.choice(["", "", "", "ec2:"])
        self.breaks = chance.choice(["", "\n    ", "\r\n\t"])

    def document(self, name, shape):
        namespace = f'xmlns{":ec2" if self.prefix else ""}="http://ec2.amazonaws.com/doc/2016-11-15/"'
        head = self.chance.choice(["", '<?xml version="1.0" encoding="UTF-8"?>', "<?xml version='1.0'?>"])
        request = self.element("requestId", self.chance.hexadecimal(32))
        tag = self.prefix + name
        return f"{head}<{tag} {namespace}>{request}{self.members(shape)}</{tag}>"

    def element(self, name, content):
        tag = self.prefix + name
        attribute = ' a="1"' if self.chance.often(0.05) else ""
        return f"<{tag}{attribute}>{content}</{tag}>" if content else f"<{tag}{attribute}/>"

    def members(self, shape):
        written = []
        for name, member in shape.members.items():
            decides = name in ALWAYS or (shape.name, name) in VALUES
            if name == "NextToken" and not self.chance.often(0.03):
                continue
            if self.chance.often(0.97 if decides else 0.2):
                location = member.serialization.get("name", name)
                written.append(self.element(location, self.content(member, shape.name, name)))
        if self.chance.often(0.2):
            written.append(self.element("unheardOf", self.element("item", "1")))
        self.chance.shuffle(written)
        return "".join(self.breaks + element for element in written) + self.breaks

    def content(self, shape, structure, name):
        if shape.type_name == "structure":
            return self.members(shape)
        if shape.type_name == "list":
            return "".join(self.element("item", self.content(shape.member, structure, name))
                           for _ in range(self.chance.choice([0, 1, 1, 2, 3])))
        # Of what decides nothing botocore reads no number without a digit, and this parser nothing.
        if self.chance.often(0.02) and (shape.type_name == "string" or name == "Size"):
            return ""
        value = VALUES.get((structure, name))
        return self.written(value(self.chance) if value else self.scalar(shape))

    def scalar(self, shape):
        if shape.type_name == "boolean":
            return self.chance.choice(["true", "false"])
        if shape.type_name in ("integer", "long"):
            return str(self.chance.randint(0, 1 << 20))
        if shape.type_name in ("float", "double"):
            return "0.5"
        if shape.type_name == "timestamp":
            return "2026-11-23T07:05:09.000Z"
        if shape.type_name == "blob":
            return "AAAA"
        return self.chance.text(UNRESERVED + RESERVED + FOREIGN, 12)

    def written(self, text):
        style = self.chance.random()
        if style < 0.1:
            return "".join(f"&#{ord(letter)};" if style < 0.05 else f"&#x{ord(letter):X};"
                           for letter in text)
        if style < 0.15 and "]]>" not in text:
            return f"<![CDATA[{text}]]>"
        middle = len(text) // 2
        if style < 0.2:
            return escape(text[:middle]) + "<!-- between -->" + escape(text[middle:])
        if style < 0.22:
            return escape(text[:middle]) + "<?what ever?>" + escape(text[middle:])
        return escape(text)


def is_id(text, prefix):
    digits = (text or "").removeprefix(prefix)
    return ((text or "").startswith(prefix) and len(digits) in (8, 17)
            and set(digits) <= set("0123456789abcdef"))


class Malformed(Exception):
    """Something is missing by which a volume's fate is decided."""


def needed(value):
    if value in (None, ""):
        raise Malformed
    return value


def read_volumes(parsed):
    return [{
        "id": needed(volume.get("VolumeId")), "state": needed(volume.get("State")),
        "zone": needed(volume.get("AvailabilityZone")), "size": needed(volume.get("Size")),
        "snapshot": volume.get("SnapshotId") or None, "type": volume.get("VolumeType", ""),
        "multiAttach": volume.get("MultiAttachEnabled", False),
        "attachments": [read_attachment(one) for one in volume.get("Attachments", [])],
        "tags": {tag["Key"]: tag.get("Value", "") for tag in volume.get("Tags", [])
                 if tag.get("Key")},
    } for volume in parsed.get("Volumes", [])]


def read_attachment(parsed):
    instance = parsed.get("InstanceId")
    return {"instance": instance if is_id(instance, "i-") else None,
            "device": parsed.get("Device") or None, "state": needed(parsed.get("State"))}


def read_instances(parsed):
    return [{
        "id": needed(instance.get("InstanceId")),
        "state": needed(instance.get("State", {}).get("Name")),
        "type": instance.get("InstanceType", ""),
        "zone": instance.get("Placement", {}).get("AvailabilityZone", ""),
        "mappings": [read_mapping(one) for one in instance.get("BlockDeviceMappings", [])
                     if one.get("DeviceName")],
        "interfaces": len(instance.get("NetworkInterfaces", [])),
    } for reservation in parsed.get("Reservations", [])
        for instance in reservation.get("Instances", [])]


def read_mapping(parsed):
    volume = parsed.get("Ebs", {}).get("VolumeId")
    return [parsed["DeviceName"], volume if is_id(volume, "vol-") else None]


def read_limit(parsed):
    for kind in parsed.get("InstanceTypes", []):
        if kind.get("InstanceType") == "m5d.large":
            ebs = kind.get("EbsInfo", {})
            if not ebs.get("MaximumEbsAttachments"):
                return {}
            disks = kind.get("InstanceStorageInfo", {}).get("Disks", [])
            return {"max": ebs["MaximumEbsAttachments"],
                    "shared": (ebs.get("AttachmentLimitType") == "shared"
                               and kind.get("Hypervisor") == "nitro"),
                    "disks": sum(disk.get("Count") or 0 for disk in disks)}
    return {}


READERS = {
    "DescribeVolumes": read_volumes, "DescribeInstances": read_instances,
    "DescribeInstanceTypes": read_limit, "AttachVolume": read_attachment,
    "DetachVolume": read_attachment}


def answer(chance, model, parser):
    action = chance.choice([*READERS, "error"])
    if action == "error":
        return error(chance, parser)
    shape = model.operation_model(action).output_shape
    body = Writer(chance).document(action + "Response", shape)
    document = {"action": action, "body": body}
    try:
        parsed = parser.parse({"body": body.encode(), "headers": {}, "status_code": 200}, shape)
        if parsed.get("NextToken"):
            raise Malformed
        document["volume"] = needed(parsed.get("VolumeId")) if "Attach" in shape.name else ""
        return {**document, "expected": READERS[action](parsed)}
    except (Malformed, ValueError):
        # A size without a digit is one that botocore cannot read either.
        return {**document, "expected": None}


def error(chance, parser):
    writer = Writer(chance)
    code = chance.choice(["VolumeInUse", "Client.Odd", chance.text(UNRESERVED, 30, 1)])
    message = chance.text(UNRESERVED + RESERVED + FOREIGN.replace("\u00a0", ""), 200)
    request = chance.hexadecimal(32)
    fields = [writer.element("Code", writer.written(code)),
              writer.element("Message", writer.written(message))]
    chance.shuffle(fields)
    inner = writer.element("Errors", writer.element("Error", "".join(fields)))
    body = f"<Response>{inner.replace('ec2:', '')}<RequestID>{request}</RequestID></Response>"
    parsed = parser.parse({"body": body.encode(), "headers": {}, "status_code": 400}, None)
    return {"action": "error", "body": body, "volume": "", "expected": {
        "code": parsed["Error"]["Code"], "message": parsed["Error"]["Message"] or "",
        "request": parsed["ResponseMetadata"]["RequestId"]}}


def main():
    what, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chance = Chance(seed)
    if what == "answers":
        model, parser = service_model(), botocore.parsers.create_parser("ec2")
    for _ in range(count):
        print(json.dumps(
            answer(chance, model, parser) if what == "answers" else signed_request(chance)))


main()
