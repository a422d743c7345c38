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

import package  # noqa: E402

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
    """A folder with this machine's mkfs.ext4 and its libraries, linked as on a system where /lib is /usr/lib."""
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
