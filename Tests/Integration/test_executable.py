"""Tests the daemon's executable: the hardening by the linker and the compiler, and what it says
about its contents."""

import pathlib
import re
import subprocess

import pytest

from daemon import ROOT, executable, runner


def readelf(*arguments):
    return subprocess.run(
        ["readelf", "--wide", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def headers():
    return readelf("--file-header", "--program-headers", executable())


@pytest.fixture(scope="module")
def sections():
    """Each section's flags."""
    rows = re.findall(r"^ +\[ *\d+\] (\S+) +\S+ +[0-9a-f]+ +[0-9a-f]+ +[0-9a-f]+ +[0-9a-f]+ +(\S*)",
                      readelf("--sections", executable()), re.MULTILINE)
    return dict(rows)


def test_it_is_a_static_executable_that_lies_anywhere(headers):
    assert "DYN (Position-Independent Executable file)" in headers
    assert "INTERP" not in headers
    assert not re.search(r"\(NEEDED\)", readelf("--dynamic", executable()))


def test_no_two_starts_have_it_at_one_address(start):
    def address(daemon):
        maps = pathlib.Path(f"/proc/{daemon.process.pid}/maps").read_text()
        file = str(pathlib.Path(executable()).resolve())
        return next(line.split("-")[0] for line in maps.splitlines() if line.endswith(file))

    daemons = [start("i-0aaaaaaaaaaaaaaa1"), start("i-0bbbbbbbbbbbbbbb2")]
    assert len({address(daemon) for daemon in daemons}) == len(daemons)


def test_no_segment_is_both_written_and_executed(headers):
    segments = re.findall(r"^  (LOAD|GNU_STACK) +(?:0x[0-9a-f]+ ){5}(...) ", headers, re.MULTILINE)
    # Without GNU_STACK the stack would be executable.
    assert {"LOAD", "GNU_STACK"} == {name for name, _ in segments}
    assert [flags for _, flags in segments if "W" in flags and "E" in flags] == []


def test_pointers_are_read_only_once_it_has_started(headers):
    """RELRO, with all symbols bound at the start instead of lazily."""
    [number] = [number for number, line in enumerate(
        re.findall(r"^  ([A-Z_]+) +0x[0-9a-f]+ ", headers, re.MULTILINE)) if line == "GNU_RELRO"]
    [covered] = re.findall(rf"^   0*{number:02d} +(.*)$", headers, re.MULTILINE)
    assert {".data.rel.ro", ".got", ".got.plt", ".init_array", ".fini_array"} <= {*covered.split()}
    assert re.search(r"\(FLAGS_1\) .*\bNOW\b", readelf("--dynamic", executable()))


def test_what_is_constant_is_never_writable(sections):
    for name in (".rodata", ".eh_frame", ".text"):
        assert "W" not in sections[name] and "A" in sections[name], name


def test_nothing_in_it_depends_on_where_it_was_built(sections):
    """Another folder must give the same bytes and the same build id."""
    assert str(ROOT).encode() not in pathlib.Path(executable()).read_bytes()
    assert ".swift_modhash" not in sections


def test_c_is_compiled_with_checks_of_its_stack():
    # The only C module with buffers on the stack.
    objects = [*pathlib.Path(executable()).with_name("CLinux.build").glob("*.o")]
    assert objects
    assert "__stack_chk_fail" in readelf("--symbols", *objects)


def test_health_tells_the_versions_of_what_it_is_made_of(start):
    daemon = start(BUILD_CONTENTS="openssl=3.0.19-1~deb12u2 xfsprogs=6.1.0-1 torn")
    health = daemon.health()
    assert health["packages"] == {"openssl": "3.0.19-1~deb12u2", "xfsprogs": "6.1.0-1"}


@pytest.mark.skipif(bool(runner()), reason="another architecture's libraries are not installed here")
def test_health_tells_the_versions_of_the_libraries_that_are_installed_here(start):
    health = start().health()
    for library, package in [("c-ares", "libc-ares-dev"), ("expat", "libexpat1-dev"),
                             ("jansson", "libjansson-dev"), ("libblkid", "libblkid-dev"),
                             ("openssl", "libssl-dev")]:
        installed = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", package],
            check=True, capture_output=True, text=True).stdout
        assert health["libraries"][library] == installed, library
