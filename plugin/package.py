#!/usr/bin/env python3
"""Makes the plugin's tarball, config.json and rootfs/, from a built daemon; pulls no image.

    package.py --daemon FILE --version V --commit C [--debug] --output FILE.tar.gz

The rootfs holds the daemon, what was built and of what, the file systems' tools with the shared
libraries that they need, the CA certificates, and the folders that the engine mounts on. The same
inputs give the same bytes: names are sorted, and owner, mode and time are fixed. What others have made
is listed in it, with their licences (contents.py).
"""

import argparse
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile

sys.dont_write_bytecode = True

import contents as parts  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = ["/sbin/mkfs.xfs", "/sbin/mkfs.ext4", "/sbin/e2fsck"]
# What mke2fs takes an ext4 to be.
MKE2FS_SETTINGS = "/etc/mke2fs.conf"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
FACTS = "etc/polarity-ecs-ebs-plugin/build"
FOLDERS = ["dev", "mnt", "proc", "run/docker/plugins", "sys", "var/lib"]
LOG_FILE = "/var/log/polarity-ecs-ebs.log"


def config(version, commit, debug):
    """The plugin's config.json; the debug variant also logs to a file on the host."""
    with open(os.path.join(HERE, "config.json"), encoding="utf-8") as file:
        text = file.read().replace("@VERSION@", version).replace("@COMMIT@", commit)
    filled = json.loads(text)
    if debug:
        filled["description"] += " (debug)"
        filled["mounts"].append({
            "name": "log", "description": "where the log file is written", "source": "/var/log",
            "destination": "/var/log", "type": "bind", "options": ["rbind"],
            "settable": ["source"]})
        for variable in filled["env"]:
            if variable["name"] == "LOG_LEVEL":
                variable["value"] = "debug"
        filled["env"].append({
            "name": "LOG_FILE", "description": "the log is written here too", "value": LOG_FILE,
            "settable": ["value"]})
    return (json.dumps(filled, indent=2) + "\n").encode()


def libraries(program):
    """The shared libraries that a program needs, its loader among them, where it seeks them."""
    found = subprocess.run(
        ["ldd", program], check=True, capture_output=True, text=True,
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]}).stdout
    if "not found" in found:
        sys.exit(f"package.py: {program} lacks a library:\n{found}")
    return re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", found, re.MULTILINE)


def require_static(program):
    """The rootfs has no libraries for the daemon, so a dynamic one could not start in it."""
    headers = subprocess.run(
        ["readelf", "--program-headers", "--wide", program], check=True, capture_output=True,
        text=True).stdout
    if " INTERP " in headers:
        sys.exit(f"package.py: {program} is not a static executable; build it with `make build`")


def stripped(program):
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "stripped")
        subprocess.run(["strip", "-o", copy, program], check=True)
        return read(copy)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def rootfs(daemon, version, commit):
    """The files of the rootfs: path -> (mode, bytes)."""
    require_static(daemon)
    missing = [path for path in [*TOOLS, MKE2FS_SETTINGS, CERTIFICATES] if not os.path.exists(path)]
    if missing:
        sys.exit(f"package.py: there is no {' and no '.join(missing)}; `make deps` installs what "
                 "is needed: xfsprogs, e2fsprogs and ca-certificates")
    files = {"bin/polarity-ecs-ebs-plugin": (0o755, stripped(daemon))}
    for path in [CERTIFICATES, MKE2FS_SETTINGS]:
        files[path.lstrip("/")] = (0o644, read(path))
    for tool in TOOLS:
        for path in [tool, *libraries(tool)]:
            files[path.lstrip("/")] = (0o755, read(path))
    contents = parts.of(f"/{path}" for path in files if not path.startswith("bin/"))
    # Not in config.json's variables: `docker plugin upgrade` would keep those of the version before.
    facts = (f"BUILD_VERSION={version}\nBUILD_COMMIT={commit}\n"
             f"BUILD_CONTENTS={contents.versions()}\n")
    return {**files, **contents.files(), FACTS: (0o644, facts.encode())}


def parents(path):
    while path := os.path.dirname(path):
        yield path


def write_tarball(output, config_json, files):
    folders = {f"rootfs/{path}" for path in FOLDERS}
    for path in [*FOLDERS, *files]:
        folders.update(parents(f"rootfs/{path}"))
    entries = {name: (0o755, None) for name in folders}
    entries["config.json"] = (0o644, config_json)
    entries |= {f"rootfs/{path}": entry for path, entry in files.items()}

    # Written aside and renamed, so that an interrupted run leaves no torn tarball.
    with open(f"{output}.part", "wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=9) as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for name, (mode, data) in sorted(entries.items()):
                    entry = tarfile.TarInfo(name)
                    entry.mode = mode
                    entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
                    entry.size = len(data or b"")
                    tar.addfile(entry, io.BytesIO(data or b""))
    os.rename(f"{output}.part", output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--daemon", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    write_tarball(
        options.output, config(options.version, options.commit, options.debug),
        rootfs(options.daemon, options.version, options.commit))
    print(f"{options.output}: {os.path.getsize(options.output) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
