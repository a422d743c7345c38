"""The form of the source as a test: no line is longer than 100 columns, no function than 60 lines.

`swift format` breaks code at 100 columns, but leaves comments, and knows no other language. The
text of a string literal does not count, nor does a line of data in a string of several lines.
"""

import ast
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS, LINES = 100, 60
# Data and prose: a table's row, a link and a pattern's list of words cannot be broken.
ANY_WIDTH = {".md", ".json", ".toml", ".txt", ".xml", ".yml", ".yaml", ".tf", ".lock"}

STRING = re.compile(r'#"(?:[^"]|"(?!#))*"#|"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')
DATA = re.compile(r"\s*[<{]")

SWIFT = re.compile(
    r"^( *)(?:(?:@\w+(?:\([^)]*\))?|[\w()]+) +)*(?:func\b|init[?(<]|deinit\b|subscript\b)")
C = re.compile(r"^()[A-Za-z_][\w *]*\([^;]*$")


def committed():
    """The text of each file that git knows and that is text."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in names.stdout.decode().split("\0"):
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def columns(line):
    """How many columns the line has, its strings left out."""
    return 0 if DATA.match(line) else min(len(line), len(STRING.sub('""', line)))


def functions_in_braces(text, begins):
    """(line number, length) of each function with a body: it ends at a brace as far in as it
    begins."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        begin = begins.match(line)
        if not begin or line.rstrip().endswith("}"):
            continue
        indent = begin[1]
        for length, following in enumerate(lines[number + 1:], 2):
            if following.startswith(indent + "}"):
                yield number + 1, length
                break
            if following.strip() and not following.startswith((indent + " ", indent + ")", "#")) \
                    and not (following == indent + "{" or following.startswith(indent + "where")):
                break


def python_functions(text):
    """(line number, length) of each."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1


def functions(path, text):
    if path.suffix == ".swift":
        return functions_in_braces(text, SWIFT)
    if path.suffix in {".c", ".h"}:
        return functions_in_braces(text, C)
    return python_functions(text) if path.suffix == ".py" else ()


class Form(unittest.TestCase):
    def test_no_line_is_longer_than_it_may_be(self):
        long = [f"{path.relative_to(ROOT)}:{number}: {columns(line)} columns"
                for path, text in committed() if path.suffix not in ANY_WIDTH
                for number, line in enumerate(text.splitlines(), 1) if columns(line) > COLUMNS]
        self.assertEqual(long, [])

    def test_no_function_is_longer_than_it_may_be(self):
        long = [f"{path.relative_to(ROOT)}:{number}: {length} lines"
                for path, text in committed() for number, length in functions(path, text)
                if length > LINES]
        self.assertEqual(long, [])

    def test_a_string_does_not_count_and_a_comment_does(self):
        self.assertEqual(columns('    f("' + "a" * 200 + '", b)'), len('    f("", b)'))
        self.assertEqual(columns("    // " + "a" * 200), 207)

    def test_the_length_of_a_function_is_found(self):
        swift = "    package func one(\n        a: Int\n    ) {\n        a\n    }\n    var b = 1\n"
        self.assertEqual(list(functions(pathlib.Path("a.swift"), swift)), [(1, 5)])
        tested = "    @Test func `b c`() throws {\n        d()\n    }\n"
        self.assertEqual(list(functions(pathlib.Path("a.swift"), tested)), [(1, 3)])
        c = "int a(void)\n{\n    b();\n}\n"
        self.assertEqual(list(functions(pathlib.Path("a.c"), c)), [(1, 4)])
        python = "def a():\n    b()\n    c()\n"
        self.assertEqual(list(functions(pathlib.Path("a.py"), python)), [(1, 3)])


if __name__ == "__main__":
    unittest.main()
