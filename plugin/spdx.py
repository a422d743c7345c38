#!/usr/bin/env python3
"""Writes the contents of a tarball as SPDX 2.3 JSON, for vulnerability scanners.

    spdx.py --tarball FILE.tar.gz --created SECONDS --output FILE.spdx.json

Everything comes from the tarball, except the time of creation in seconds since 1970: so the same
tarball and time give the same bytes.
"""

import argparse
import datetime
import hashlib
import json
import pathlib
import re
import tarfile
import urllib.parse

NAME = "polarity-ecs-ebs-plugin"
LICENCE = "Apache-2.0"
CONTENTS = f"rootfs/usr/share/{NAME}/contents.json"
FACTS = f"rootfs/etc/{NAME}/build"
REPOSITORIES = "https://github.com/apple/"


def read_tarball(path):
    """(version, [component, ...]) as package.py stored them."""
    with tarfile.open(path) as tar:
        facts = tar.extractfile(FACTS).read().decode()
        [version] = re.findall("^BUILD_VERSION=(.*)$", facts, re.MULTILINE)
        return version, json.load(tar.extractfile(CONTENTS))


def identifier(*words):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", "-".join(words))


def identifier_of(component):
    """With the version, since the tarball may hold two of one source."""
    return identifier(component["name"], component["version"])


def origin(component):
    """(where the source is, the package URL, who supplies it)."""
    name, version = component["name"], component["version"]
    if component["origin"] == "debian":
        quoted = urllib.parse.quote(version, safe="")
        return (f"https://snapshot.debian.org/package/{name}/{quoted}/",
                f"pkg:deb/debian/{name}@{quoted}?arch=source", "Organization: Debian")
    if name == "swift":
        return ("https://www.swift.org/install/linux/", f"pkg:generic/swift@{version}",
                "Organization: Swift.org")
    return (f"git+{REPOSITORIES}{name}@{version}", f"pkg:swift/github.com/apple/{name}@{version}",
            "Organization: Apple Inc.")


def places(component):
    linked = ["linked statically into the daemon"] if component["linked"] else []
    return "; ".join(linked + [f"in the root file system: {file}" for file in component["files"]])


def package(component):
    source, url, supplier = origin(component)
    return {
        "SPDXID": identifier_of(component), "name": component["name"],
        "versionInfo": component["version"], "supplier": supplier, "downloadLocation": source,
        "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": component["licence"],
        "copyrightText": "NOASSERTION", "comment": places(component),
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                          "referenceLocator": url}],
    }


def relationships(component):
    kinds = (["STATIC_LINK"] if component["linked"] else []) + (
        ["CONTAINS"] if component["files"] else [])
    for kind in kinds:
        yield {"spdxElementId": identifier(NAME), "relationshipType": kind,
               "relatedSpdxElement": identifier_of(component)}


def document(tarball, created):
    version, components = read_tarball(tarball)
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    time = datetime.datetime.fromtimestamp(created, datetime.timezone.utc)
    plugin = {
        "SPDXID": identifier(NAME), "name": NAME, "versionInfo": version,
        "packageFileName": tarball.name, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
        "licenseConcluded": LICENCE, "licenseDeclared": LICENCE, "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "APPLICATION",
    }
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": tarball.name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{tarball.name}-{digest}",
        "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                         "creators": [f"Tool: {NAME}-spdx.py"]},
        "packages": [plugin, *map(package, components)],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
             "relatedSpdxElement": identifier(NAME)},
            *(link for component in components for link in relationships(component))],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tarball", required=True, type=pathlib.Path)
    parser.add_argument("--created", required=True, type=int)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    text = json.dumps(document(options.tarball, options.created), indent=2)
    options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
