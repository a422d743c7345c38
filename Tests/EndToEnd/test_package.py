"""Tests how plugin/package.py finds the contents of the rootfs, for this machine's architecture and
another. Needs neither root nor Docker."""

import pathlib
import platform
import shutil
import struct
import sys

import pytest

from host import ROOT

sys.path.insert(0, str(ROOT / "plugin"))

import contents as parts  # noqa: E402
import package  # noqa: E402
import spdx  # noqa: E402

X86_64, AARCH64 = 62, 183
LOAD, INTERP = 1, 3
MULTIARCH = f"{platform.machine()}-linux-gnu"


def program(path, machine, *segments):
    """Writes an executable that consists of headers only: (type, alignment) of each segment."""
    headers = [struct.pack("<IIQQQQQQ", kind, 5, 0, 0, 0, 64, 64, alignment)
               for kind, alignment in segments]
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, 0, 64, 0, 0, 64, 56,
                         len(headers), 64, 0, 0)
    path.write_bytes(header + b"".join(headers))
    return str(path)


@pytest.mark.parametrize("machine, pages", [(X86_64, 0x1000), (AARCH64, 0x10000)])
def test_a_daemon_that_loads_everywhere_is_taken(tmp_path, machine, pages):
    package.require_loadable(program(tmp_path / "daemon", machine, (LOAD, pages), (LOAD, pages)))


def test_a_daemon_for_arm64_loads_on_pages_of_64_kib(tmp_path):
    with pytest.raises(SystemExit, match="pages of 4096 bytes.*max-page-size=65536"):
        package.require_loadable(
            program(tmp_path / "daemon", AARCH64, (LOAD, 0x10000), (LOAD, 0x1000)))


def test_a_daemon_needs_no_library(tmp_path):
    with pytest.raises(SystemExit, match="not a static executable"):
        package.require_loadable(program(tmp_path / "daemon", X86_64, (INTERP, 1), (LOAD, 0x1000)))


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with this machine's mkfs.ext4 and its libraries, linked as on a system where /lib is
    /usr/lib."""
    here = package.Files("", MULTIARCH)
    for path in ["/sbin/mkfs.ext4", *here.libraries("/sbin/mkfs.ext4")]:
        copy = tmp_path / "usr" / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here.real(path), copy)
    for name in {path.name for path in (tmp_path / "usr").iterdir()}:
        # Absolute links of a system lead into its own folders, not into this machine's.
        (tmp_path / name).symlink_to(f"/usr/{name}")
    return tmp_path


def test_the_libraries_of_another_system_are_those_that_it_has(elsewhere):
    files = package.Files(str(elsewhere), MULTIARCH)
    libraries = files.libraries("/sbin/mkfs.ext4")
    assert libraries == package.Files("", MULTIARCH).libraries("/sbin/mkfs.ext4")
    assert any(pathlib.Path(path).name.startswith("libext2fs.so") for path in libraries)
    for path in libraries:
        assert files.real(path).startswith(f"{elsewhere}/usr/lib"), path


def test_a_library_that_is_missing_is_named_even_where_this_machine_has_it(elsewhere):
    (elsewhere / "usr" / "lib" / MULTIARCH / "libcom_err.so.2").unlink()
    files = package.Files(str(elsewhere), MULTIARCH)
    with pytest.raises(SystemExit, match=rf"needs libcom_err\.so\.2, .* of {elsewhere}$"):
        files.libraries("/sbin/mkfs.ext4")


@pytest.fixture
def two_libcs(tmp_path):
    """Packages of another architecture: the daemon's C library is not of the programs' version."""
    for folder, file, package_name, version in [
            ("programs", "/lib/aarch64-linux-gnu/libc.so.6", "libc6", "2.36-9+deb12u14"),
            ("sysroot", "/usr/lib/aarch64-linux-gnu/libc.a", "libc6-dev", "2.43-7")]:
        copyright_file = tmp_path / folder / "usr/share/doc" / package_name / "copyright"
        copyright_file.parent.mkdir(parents=True)
        copyright_file.write_text(f"of {version}\n")
        (tmp_path / f"{folder}.packages").write_text(
            f"{file}\t{package_name}\tglibc\t{version}\n")
    return parts.Unpacked(tmp_path / "programs", tmp_path / "sysroot")


def test_two_versions_of_one_source_are_both_told(two_libcs, tmp_path):
    made = parts.Contents(two_libcs)
    made.add_linked([two_libcs.archive("libc.a")])
    made.add_file("/lib/aarch64-linux-gnu/libc.so.6")
    # To scanners, each with what is of it.
    tarball = tmp_path / "plugin.tar.gz"
    facts = {package.FACTS: (0o644, b"BUILD_VERSION=1\n")}
    package.write_tarball(tarball, b"{}", {**made.files(), **facts})
    document = spdx.document(tarball, 0)
    _, older, newer = document["packages"]
    assert (older["versionInfo"], newer["versionInfo"]) == ("2.36-9+deb12u14", "2.43-7")
    assert older["comment"] == "in the root file system: /lib/aarch64-linux-gnu/libc.so.6"
    assert newer["comment"] == "linked statically into the daemon"
    assert [(link["relationshipType"], link["relatedSpdxElement"])
            for link in document["relationships"][1:]] == [
                ("CONTAINS", older["SPDXID"]), ("STATIC_LINK", newer["SPDXID"])]
    assert older["SPDXID"] != newer["SPDXID"]
    # To /health, and with their licences.
    assert made.versions() == "glibc=2.36-9+deb12u14,2.43-7"
    texts = [text for name, (_, text) in made.files().items() if name.endswith("/copyright")]
    assert texts == [b"of 2.36-9+deb12u14\n", b"of 2.43-7\n"]
