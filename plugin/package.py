#!/usr/bin/env python3
"""Creates the plugin's tarball (config.json and rootfs/) from a built daemon; pulls no image.

    package.py --daemon FILE --version V --commit C [--debug] [--cross FOLDER] --output FILE.tar.gz

The rootfs contains the daemon, the description of the build, the file systems' tools with the
shared libraries that they need, the CA certificates, and the mountpoints that the engine uses. The
same inputs give the same bytes: names are sorted, and owner, mode and time are fixed. Tools and
libraries are this machine's, or those of another architecture that .ci/cross has unpacked into
FOLDER. The rootfs lists third-party components with their licences (contents.py).
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
CROSS = os.path.join(HERE, os.pardir, ".ci", "cross")
TOOLS = ["/sbin/mkfs.xfs", "/sbin/mkfs.ext4", "/sbin/e2fsck"]
# mke2fs's definition of ext4.
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


def readelf(option, program):
    return subprocess.run(
        ["readelf", option, "--wide", program], check=True, capture_output=True, text=True).stdout


class Files:
    """The files of a system below `root`: this machine's, or those of another architecture."""

    def __init__(self, root, multiarch):
        self.root = root
        self.folders = [f"{prefix}/lib/{multiarch}" for prefix in ("", "/usr")]

    def real(self, path):
        """The path on this machine of a file of that system. Links are resolved within that
        system."""
        found = "/"
        parts = path.split("/")
        while parts:
            found = os.path.normpath(os.path.join(found, parts.pop(0)))
            if os.path.islink(self.root + found):
                target = os.readlink(self.root + found)
                parts = [*os.path.join(os.path.dirname(found), target).split("/"), *parts]
                found = "/"
        return self.root + found

    def has(self, path):
        return os.path.exists(self.real(path))

    def libraries(self, program):
        """The shared libraries that a program needs, including its loader, at the paths where it
        looks for them."""
        loader = re.search(r"program interpreter: (\S+)\]",
                           readelf("--program-headers", self.real(program)))[1]
        found, unread = {os.path.basename(loader): loader}, [program]
        while unread:
            file = unread.pop()
            for name in re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("--dynamic", self.real(file))):
                if name not in found:
                    found[name] = self.library(name, file)
                    unread.append(found[name])
        return sorted(found.values())

    def library(self, name, of):
        for folder in self.folders:
            if self.has(f"{folder}/{name}"):
                return f"{folder}/{name}"
        sys.exit(f"package.py: {of} needs {name}, which is not in {' or '.join(self.folders)}"
                 f"{' of ' + self.root if self.root else ''}")


def multiarch(daemon):
    """Debian's name of the architecture that the daemon was built for."""
    machine = re.search(r"Machine: +(.*)", readelf("--file-header", daemon))[1]
    return "aarch64-linux-gnu" if machine == "AArch64" else "x86_64-linux-gnu"


def require_loadable(program):
    """The rootfs has no libraries for the daemon, so a dynamically linked one could not start.
    Kernels for arm64 may have pages of 64 KiB, and do not load a program whose segments are closer
    together."""
    headers = readelf("--program-headers", program)
    if " INTERP " in headers:
        sys.exit(f"package.py: {program} is not a static executable; build it with `make build`")
    pages = [int(size, 16) for size in re.findall(r"^ +LOAD .* (0x\w+)$", headers, re.MULTILINE)]
    if multiarch(program) == "aarch64-linux-gnu" and min(pages) < 0x10000:
        sys.exit(f"package.py: {program} is linked for pages of {min(pages)} bytes; link it with "
                 "-z max-page-size=65536")


def stripped(program, cross):
    """This machine's strip cannot process another architecture's program; the compiler's can."""
    with tempfile.TemporaryDirectory(dir=cross) as folder:
        copy = os.path.join(folder, "stripped")
        command = [CROSS, "run", "llvm-objcopy", "--strip-all"] if cross else ["objcopy", "--strip-all"]
        subprocess.run([*command, os.path.abspath(program), os.path.abspath(copy)], check=True)
        return read(copy)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def rootfs(daemon, version, commit, cross):
    """The files of the rootfs: path -> (mode, bytes)."""
    require_loadable(daemon)
    system = Files(f"{os.path.abspath(cross)}/programs" if cross else "", multiarch(daemon))
    missing = [path for path in [*TOOLS, MKE2FS_SETTINGS] if not system.has(path)]
    # The file is the same on all architectures. It is generated when its package is installed.
    missing += [] if os.path.exists(CERTIFICATES) else [CERTIFICATES]
    if missing:
        sys.exit(f"package.py: there is no {' and no '.join(missing)}{' in ' + cross if cross else ''}; "
                 "`make deps` installs what is needed: xfsprogs, e2fsprogs and ca-certificates")
    files = {"bin/polarity-ecs-ebs-plugin": (0o755, stripped(daemon, cross)),
             CERTIFICATES.lstrip("/"): (0o644, read(CERTIFICATES)),
             MKE2FS_SETTINGS.lstrip("/"): (0o644, read(system.real(MKE2FS_SETTINGS)))}
    for tool in TOOLS:
        for path in [tool, *system.libraries(tool)]:
            files[path.lstrip("/")] = (0o755, read(system.real(path)))
    packages = cross and parts.Unpacked(f"{cross}/programs", f"{cross}/sysroot")
    contents = parts.of((f"/{path}" for path in files if not path.startswith("bin/")), packages)
    # Not in config.json's variables: `docker plugin upgrade` would keep those of the previous
    # version.
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

    # Written to a temporary file and renamed, so that an interrupted run leaves no incomplete
    # tarball.
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
    parser.add_argument("--cross")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    write_tarball(
        options.output, config(options.version, options.commit, options.debug),
        rootfs(options.daemon, options.version, options.commit, options.cross))
    print(f"{options.output}: {os.path.getsize(options.output) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
