"""What the documents name is what the repository has. `make check` runs it without compiling
anything."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "Sources"
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
SAFETY = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")

# What the daemon is made of: whatever these modules log, an operator may read.
DAEMON = ["Agent", "VolumeCore", "AWSWire", "Base", "EC2Client", "HTTPClient", "HTTPServer",
          "HTTPWire", "JSON", "Linux", "Ring", "Streams", "TLS", "XML", "polarity-ecs-ebs-plugin"]
LOG_CALL = re.compile(r"\blog\.(trace|debug|info|notice|warning|error|critical)\(")
LOG_LINE = re.compile(LOG_CALL.pattern + r'\s*"((?:[^"\\]|\\.)*)"')
# LogSink and LineLog write their own lines past the logger.
OWN_LINE = re.compile(r'message: "((?:[^"\\]|\\.)*)"')
# An error's operation, up to the first name or id in it.
DOING = re.compile(r'(?:\bdoing:|\blet doing =|\bstateFailure\()\s*"((?:[^"\\]|\\(?!\())*)')
ROW = re.compile(r"^\| ([a-z, ]+) \| `([^`]+)` \|", re.MULTILINE)
ERROR_ROW = re.compile(r"^\| `cannot ([^`]+)` \|", re.MULTILINE)
PHASE = re.compile(r"var phaseName: String \{(.*?)\n    \}", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A path in backticks: in a folder of the repository, or with an ending that only files have.
FOLDERS = ["Sources", "Tests", "CShims", "plugin", "demo", "benchmarks", "docs", r"\.ci", r"\.github"]
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./+*-]*)`")
FILE = re.compile(r"`([\w+-]+(?:/[\w+-]+)*\.(?:swift|py|toml|ld))`")
# A file of tests or of invariants, and those in it that prove a promise.
PROOF = re.compile(r"`((?:Tests|Sources)/[\w./-]+)`(?: \(((?:`[^`]+`,?\s*)+)\))?")


def sources():
    return {path: path.read_text(encoding="utf-8")
            for module in DAEMON for path in sorted((SOURCES / module).rglob("*.swift"))}


def headings(path):
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


class LogLines(unittest.TestCase):
    def test_every_log_line_is_named_with_its_level(self):
        rows = {(level, message) for levels, message in ROW.findall(OPERATING)
                for level in levels.split(", ")}
        for path, text in sources().items():
            lines = LOG_LINE.findall(text)
            self.assertEqual(len(lines), len(LOG_CALL.findall(text)),
                             f"{path.name} logs a message that is no literal")
            for level, message in lines:
                with self.subTest(path.name):
                    self.assertIn((level, message), rows)

    def test_the_lines_of_the_log_itself_are_named(self):
        messages = [message for path, text in sources().items()
                    if path.name in ("LogSink.swift", "LineLog.swift")
                    for message in OWN_LINE.findall(text) if "\\(" not in message]
        self.assertEqual(len(messages), 2)
        for message in messages:
            self.assertIn(f"`{message}`", OPERATING)

    def test_no_line_is_named_that_nothing_logs(self):
        text = "\n".join(sources().values())
        for _, message in ROW.findall(OPERATING):
            with self.subTest(message):
                self.assertIn(f'"{message}"', text)


class Errors(unittest.TestCase):
    def test_every_operation_that_can_fail_is_named(self):
        rows = [re.sub(r"\s*….*", "", row) for row in ERROR_ROW.findall(OPERATING)]
        self.assertGreater(len(rows), 40)
        operations = {operation.strip() for text in sources().values()
                      for operation in DOING.findall(text)}
        for operation in operations:
            with self.subTest(operation):
                self.assertIn(operation, rows)
        for row in rows:
            with self.subTest(row):
                self.assertIn(row, operations)


class States(unittest.TestCase):
    def test_every_state_is_named(self):
        [body] = [body for text in sources().values() for body in PHASE.findall(text)]
        for phase in re.findall(r'"(\w+)"', body):
            with self.subTest(phase):
                self.assertRegex(OPERATING, rf"(?m)^\| `{phase}` \|")


class Files(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for document in DOCUMENTS:
            for link in LINK.findall(document.read_text(encoding="utf-8")):
                if re.match(r"https?:", link):
                    continue
                path, _, anchor = link.partition("#")
                target = document.parent / path if path else document
                with self.subTest(f"{document.name}: {link}"):
                    self.assertTrue(target.exists())
                    if anchor:
                        self.assertIn(anchor, headings(target))

    def test_files_that_are_named_exist(self):
        names = {path.name for folder in FOLDERS[:6] for path in (ROOT / folder).rglob("*")}
        for document in DOCUMENTS:
            text = document.read_text(encoding="utf-8")
            for path in PATH.findall(text):
                with self.subTest(f"{document.name}: {path}"):
                    self.assertTrue((ROOT / path).exists())
            for file in FILE.findall(text):
                with self.subTest(f"{document.name}: {file}"):
                    self.assertTrue((ROOT / file).exists() or (SOURCES / file).exists()
                                    or ("/" not in file and file in names))

    def test_the_proofs_of_safety_exist(self):
        proofs = PROOF.findall(SAFETY)
        self.assertGreater(len(proofs), 20)
        for path, tests in proofs:
            text = (ROOT / path).read_text(encoding="utf-8")
            for test in re.findall(r"`([^`]+)`", tests):
                with self.subTest(f"{path}: {test}"):
                    self.assertRegex(text, rf'(?:`|"|def ){re.escape(test)}[`"(]')


if __name__ == "__main__":
    unittest.main()
