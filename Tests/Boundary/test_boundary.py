"""Checks the architecture: which module may import which, and what the daemon must not contain.
HACKING.md has the map. `make check` runs this without compiling anything, with unittest alone.
"""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "Sources"

# Pure modules and what they import. They do no I/O.
PURE = {
    "Base": set(),
    "JSON": {"Base", "CJansson"},
    "XML": {"Base", "CExpat"},
    "HTTPWire": {"Base"},
    "AWSWire": {"Base", "JSON", "XML"},
    "VolumeCore": {"Base"},
    "Agent": {"Base", "JSON", "VolumeCore", "Logging"},
    "Simulation": {"Base", "VolumeCore", "Agent", "Logging"},
    "EC2Model": {"Base"},
}
# Edge modules: they know nothing of volumes' lives.
EDGE = {
    "Ring": {"Base", "CLinux", "CUring"},
    "TLS": {"COpenSSL"},
    "Streams": {"Base", "Ring", "TLS"},
    "Linux": {"Base", "Ring", "CLinux", "CBlkid"},
    "HTTPServer": {"Base", "HTTPWire", "Ring", "TLS", "Streams"},
    "HTTPClient": {"Base", "HTTPWire", "Ring", "TLS", "Streams", "CCares"},
    "EC2Client": {"Base", "AWSWire", "HTTPWire", "HTTPClient", "Ring", "TLS", "Logging"},
}
EDGE_LIBRARIES = {"Glibc", "SystemPackage", "Synchronization"}
DAEMON = "polarity-ecs-ebs-plugin"
PROGRAMS = {DAEMON, "ec2-simulator", "life-simulator"}

# A bare task resumes on the global pool's threads, and Task.sleep starts them: the daemon has one
# thread. Foundation would be most of its size.
FORBIDDEN = [r"\bTask\s*\{", r"\bTask\.detached\b", r"\bTask\.sleep\b", r"\bimport\s+Foundation",
             r"\bDispatchQueue\b"]
# An error without a text of its own would be told to a user by its type's name.
ERROR = re.compile(r"\b(?:struct|enum|class|actor|extension)\s+([\w.]+)\s*:([^{]*\bError\b[^{]*)\{")
IMPORT = re.compile(r"^\s*(?:@\w+\s+)*(?:\w+\s+)?import\s+(\w+)", re.MULTILINE)


def code(text):
    """The text without line comments."""
    return re.sub(r"//.*", "", text)


def files_of(module):
    """(name, code) of each source file."""
    found = [(f"{module}/{path.name}", code(path.read_text(encoding="utf-8")))
             for path in sorted((SOURCES / module).rglob("*.swift"))]
    assert found, f"{module} has no sources"
    return found


class Boundary(unittest.TestCase):
    def test_every_module_is_known(self):
        self.assertEqual({path.name for path in SOURCES.iterdir()}, {*PURE, *EDGE, *PROGRAMS})

    def check_imports(self, modules, more):
        for module, allowed in modules.items():
            for name, text in files_of(module):
                with self.subTest(name):
                    self.assertEqual(set(IMPORT.findall(text)) - allowed - more, set())

    def test_a_pure_module_imports_no_edge_and_no_c_module_but_a_parser(self):
        self.check_imports(PURE, set())

    def test_an_edge_module_imports_what_is_below_it(self):
        self.check_imports(EDGE, EDGE_LIBRARIES)

    def test_the_daemon_has_nothing_that_leaves_its_thread_and_no_foundation(self):
        for module in (*PURE, *EDGE, DAEMON):
            for name, text in files_of(module):
                for number, line in enumerate(text.splitlines(), 1):
                    with self.subTest(f"{name}:{number}"):
                        self.assertEqual([p for p in FORBIDDEN if re.search(p, line)], [])

    def test_every_error_of_the_daemon_has_a_text(self):
        modules = {*PURE, *EDGE, DAEMON} - {"Simulation", "EC2Model"}
        errors = [(f"{name}: {error}", conformances) for module in modules
                  for name, text in files_of(module) for error, conformances in ERROR.findall(text)]
        self.assertGreater(len(errors), 15)
        for name, conformances in errors:
            with self.subTest(name):
                self.assertIn("CustomStringConvertible", conformances)

    def test_a_c_header_defines_no_feature_macro_that_swift_would_see(self):
        headers = list((ROOT / "CShims").rglob("*.h"))
        self.assertTrue(headers)
        for path in headers:
            self.assertNotIn("#define _GNU_SOURCE", path.read_text(encoding="utf-8"), path.name)

    def test_the_rules_find_what_breaks_them(self):
        text = code("package import Ring\n// Task { }\nTask { }\n/* import Foundation */")
        self.assertEqual(IMPORT.findall(text), ["Ring"])
        self.assertEqual(len(re.findall(FORBIDDEN[0], text)), 1)


if __name__ == "__main__":
    unittest.main()
