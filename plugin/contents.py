"""Lists what the plugin is made of: every third-party component in the tarball, with its version,
licence, source, and the text of its licence.

Debian's packages are listed by the names and versions of their source packages, as in Debian's
security tracker.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Linked without being named in Package.swift: the C and C++ libraries, and those that compilers
# add.
RUNTIME = ["libc.a", "libm.a", "libstdc++.a", "libgcc.a", "libgcc_eh.a"]
# Those dependencies in Package.swift that are part of the daemon.
SWIFT_PACKAGES = ["swift-log", "swift-system"]
SWIFT_LICENCE = "Apache-2.0 WITH Swift-exception"
# SPDX's names of the licences of those parts of the sources that the plugin uses. The copyright
# files in the tarball are authoritative.
LICENCES = {
    "c-ares": "MIT", "ca-certificates": "MPL-2.0 AND GPL-2.0-or-later",
    "e2fsprogs": "GPL-2.0-only AND LGPL-2.0-only AND BSD-3-Clause AND MIT", "expat": "MIT",
    "gcc-12": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "gcc-14": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "gcc-15": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "gcc-16": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "glibc": "LGPL-2.1-or-later", "jansson": "MIT", "libinih": "BSD-3-Clause",
    "liburcu": "LGPL-2.1-or-later", "liburing": "MIT", "openssl": "Apache-2.0",
    "swift": SWIFT_LICENCE, "swift-log": "Apache-2.0", "swift-system": SWIFT_LICENCE,
    "swiftlang": SWIFT_LICENCE, "util-linux": "LGPL-2.1-or-later AND BSD-3-Clause",
    "xfsprogs": "GPL-2.0-only AND LGPL-2.1-only",
}
# The texts that Debian's copyright files refer to.
COMMON_LICENCES = pathlib.Path("/usr/share/common-licenses")
# Generated at installation, so no package lists it.
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/usr/sbin/update-ca-certificates")


class Missing(Exception):
    """The origin of something in the plugin is unknown."""


class Component:
    """`files` are paths in the rootfs; there are none for a library that is linked into the
    daemon."""

    def __init__(self, name, version, origin, copyright):
        self.name, self.version, self.origin, self.copyright = name, version, origin, copyright
        self.is_linked, self.files = False, []

    def described(self):
        return {"name": self.name, "version": self.version, "origin": self.origin,
                "licence": LICENCES.get(self.name, "NOASSERTION"), "linked": self.is_linked,
                "files": sorted(self.files)}


class Installed:
    """Debian's packages on this machine, and swift.org's toolchain if Swift is not one of them."""

    def owner(self, path):
        """(binary package, source package, its version) of a file; None if no package has it."""
        for name in spellings(path):
            found = subprocess.run(
                ["dpkg-query", "--search", name], capture_output=True, text=True)
            if found.returncode == 0:
                package = found.stdout.split(": ")[0].split(",")[0]
                shown = subprocess.run(
                    ["dpkg-query", "--show", "--showformat",
                     "${source:Package}\t${source:Version}", package],
                    check=True, capture_output=True, text=True).stdout
                return (package.split(":")[0], *shown.split("\t"))
        return None

    def copyright(self, package):
        return pathlib.Path(f"/usr/share/doc/{package}/copyright").read_bytes()

    def archive(self, name):
        """Where the linker finds a static library."""
        found = subprocess.run(["gcc", f"-print-file-name={name}"], check=True,
                               capture_output=True, text=True).stdout.strip()
        if not os.path.isabs(found):
            raise Missing(f"gcc does not find {name}; `make deps` installs what is needed")
        return os.path.realpath(found)

    def swift(self):
        compiler = swift_compiler()
        if owned := self.owner(str(compiler)):
            package, source, version = owned
            return Component(source, version, "debian", self.copyright(package))
        told = subprocess.run(
            ["swift", "--version"], check=True, capture_output=True, text=True).stdout
        licence = compiler.parents[1] / "share" / "swift" / "LICENSE.txt"
        return Component(
            "swift", re.search(r"Swift version ([\w.]+)", told)[1], "swift", licence.read_bytes())


class Unpacked:
    """Debian's packages of another architecture, unpacked into folders. Next to each FOLDER there
    is a table FOLDER.packages with one line per file: path, package, source package and its
    version, separated by tabs. If several folders have a file, the first one counts."""

    def __init__(self, *folders):
        self.folders = [pathlib.Path(folder) for folder in folders]
        self.owners = {}
        for folder in self.folders:
            for line in pathlib.Path(f"{folder}.packages").read_text(encoding="utf-8").splitlines():
                path, *owner = line.split("\t")
                self.owners.setdefault(path, tuple(owner))

    def owner(self, path):
        return next((self.owners[name] for name in (path, *spellings(path))
                     if name in self.owners), None)

    def copyright(self, package):
        for folder in self.folders:
            path = folder / "usr" / "share" / "doc" / package / "copyright"
            if path.exists():
                return path.read_bytes()
        raise Missing(f"the copyright file of {package} was not unpacked")

    def archive(self, name):
        found = [path for path in self.owners if path.endswith(f"/{name}")]
        if not found:
            raise Missing(f"no unpacked package has {name}")
        return found[0]

    def swift(self):
        package, source, version = self.owner(self.archive("libswiftCore.a"))
        return Component(source, version, "debian", self.copyright(package))


def spellings(path):
    """A package may list /lib/x or /usr/lib/x, which may be the same folder."""
    real = os.path.realpath(path)
    for name in dict.fromkeys([path, real]):
        yield name
        yield name.removeprefix("/usr") if name.startswith("/usr/") else f"/usr{name}"


def archives():
    """The static libraries that Package.swift names, and those of the runtime."""
    text = (ROOT / "Package.swift").read_text(encoding="utf-8")
    return sorted({*re.findall(r'"(lib\w+\.a)"', text), *RUNTIME})


def swift_compiler():
    """The compiler of the toolchain: the command may be that of swiftly, which is elsewhere."""
    info = subprocess.run(
        ["swift", "-print-target-info"], check=True, capture_output=True, text=True).stdout
    return pathlib.Path(json.loads(info)["paths"]["runtimeResourcePath"]).parents[1] / "bin" / "swiftc"


def swift_packages():
    state = json.loads((ROOT / ".build" / "workspace-state.json").read_text(encoding="utf-8"))
    for dependency in state["object"]["dependencies"]:
        name = dependency["packageRef"]["identity"]
        if name in SWIFT_PACKAGES:
            licence = ROOT / ".build" / "checkouts" / dependency["subpath"] / "LICENSE.txt"
            yield Component(name, dependency["state"]["checkoutState"]["version"], "swift",
                            licence.read_bytes())


class Contents:
    def __init__(self, packages):
        self.packages = packages
        self.components = {}

    def component(self, path):
        """The copyright file of the file's source package."""
        packages, asked = self.packages, path
        if path == CERTIFICATES[0]:
            # The file is the same on all architectures, so this machine's is used.
            packages, asked = Installed(), CERTIFICATES[1]
        owned = packages.owner(asked)
        if owned is None:
            raise Missing(f"{path} belongs to no package")
        package, source, version = owned
        # The daemon's libraries and the programs' may be of two versions of one source.
        return self.components.setdefault(
            (source, version), Component(source, version, "debian", packages.copyright(package)))

    def add_file(self, path):
        self.component(path).files.append(path)

    def add_linked(self, paths, *others):
        for path in paths:
            self.component(path).is_linked = True
        for component in others:
            component.is_linked = True
            self.components[component.name, component.version] = component

    def sorted(self):
        return [self.components[key] for key in sorted(self.components)]

    def versions(self):
        """The form for /health: name=version, separated by spaces; several versions by commas."""
        versions = {}
        for component in self.sorted():
            versions.setdefault(component.name, []).append(component.version)
        return " ".join(f"{name}={','.join(found)}" for name, found in versions.items())

    def files(self):
        """The files in the rootfs that describe them: path -> (mode, bytes)."""
        listed = json.dumps([component.described() for component in self.sorted()], indent=1)
        told = {"usr/share/polarity-ecs-ebs-plugin/contents.json": (0o644, listed.encode() + b"\n")}
        for component in self.sorted():
            told[f"usr/share/doc/{self.folder(component)}/copyright"] = (0o644, component.copyright)
        for name in self.common_licences():
            path = COMMON_LICENCES / name
            told[str(path).lstrip("/")] = (0o644, path.read_bytes())
        return told

    def folder(self, component):
        alone = [name for name, _ in self.components].count(component.name) == 1
        return component.name if alone else f"{component.name}-{component.version}"

    def common_licences(self):
        texts = b"".join(component.copyright for component in self.components.values())
        named = re.findall(rf"{COMMON_LICENCES}/([A-Z][\w.-]*\w)", texts.decode(errors="replace"))
        return sorted(name for name in set(named) if (COMMON_LICENCES / name).exists())


def of(files, packages=None):
    """The components of a daemon that was linked with these packages, plus these files of the
    packages; by default, of this machine's packages."""
    packages = packages or Installed()
    contents = Contents(packages)
    try:
        contents.add_linked(
            map(packages.archive, archives()), packages.swift(), *swift_packages())
        for path in files:
            contents.add_file(path)
    except Missing as missing:
        sys.exit(f"package.py: {missing}")
    return contents
