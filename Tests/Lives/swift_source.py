"""Reads Swift source as nested tokens and statements: only as much of the grammar as mutations
need."""

import dataclasses
import re

OPEN = {"(": ")", "[": "]", "{": "}"}
WORD = re.compile(r"[@#$]?[A-Za-z_][A-Za-z0-9_]*|\$[0-9]+|`[^`]+`")
NUMBER = re.compile(r"[0-9][A-Za-z0-9_]*(\.[0-9][A-Za-z0-9_]*)?")
DOTS = re.compile(r"\.+<?")
OPERATOR = re.compile(r"[/=\-+*%<>&|^~!?]+")
BLANK = re.compile(r"[ \t\r\n]+|//[^\n]*")
QUOTE = re.compile(r'(#*)("""|")')
# After one of the first words, a statement continues on the next line; a line that begins with one
# of the second words continues the previous statement.
UNFINISHED = {"try", "await", "throw", "let", "var", "case", "where", "as", "is", "in", "else",
    "if", "guard", "while", "for", "switch"}
CONTINUING = {"else", "catch", "where", "as", "is"}


class Unreadable(Exception):
    """The text is not Swift that this module understands."""


@dataclasses.dataclass(slots=True, eq=False)
class Token:
    """A token; a group from a bracket to its counterpart; or a string with its interpolations.

    `kind` is word, number, operator, mark, string, or the opening bracket of a group. `inner` has
    the tokens of a group, or a string's interpolations.
    """
    kind: str
    text: str
    start: int
    end: int
    after_blank: bool
    on_new_line: bool
    before_blank: bool = False
    inner: list = dataclasses.field(default_factory=list)

    @property
    def is_binary(self):
        return self.kind == "operator" and self.after_blank and self.before_blank


class Reader:
    def __init__(self, text):
        self.text, self.at = text, 0

    def tokens(self, closing=None):
        """Reads the tokens up to the closing bracket of the group, and consumes that bracket."""
        found = []
        while True:
            before = self.at
            is_new = self.skip_blanks()
            has_blank = self.at > before
            if found:
                found[-1].before_blank = has_blank
            if self.at >= len(self.text):
                if closing:
                    raise Unreadable(f"no {closing} to the end")
                return found
            if self.text[self.at] == closing:
                self.at += 1
                return found
            found.append(self.token(found, has_blank, is_new))

    def skip_blanks(self):
        start = self.at
        while True:
            if blank := BLANK.match(self.text, self.at):
                self.at = blank.end()
            elif self.text.startswith("/*", self.at):
                self.at = self.end_of_comment()
            else:
                return "\n" in self.text[start:self.at]

    def end_of_comment(self):
        depth = 0
        for mark in re.compile(r"/\*|\*/").finditer(self.text, self.at):
            depth += 1 if mark.group() == "/*" else -1
            if depth == 0:
                return mark.end()
        raise Unreadable("a comment does not end")

    def token(self, before, has_blank, is_new):
        start, mark = self.at, self.text[self.at]
        if quote := QUOTE.match(self.text, start):
            return self.string(quote, has_blank, is_new)
        if mark in OPEN:
            self.at += 1
            inner = self.tokens(OPEN[mark])
            return Token(mark, mark, start, self.at, has_blank, is_new, inner=inner)
        # Directly after an operand, `?` and `!` are tokens of their own, as in `a?.b` and `try?`.
        is_postfix = mark in "?!" and before and not has_blank and before[-1].kind != "operator"
        for kind, form in (("word", WORD), ("number", NUMBER), ("operator", DOTS),
                           ("operator", OPERATOR)):
            if match := form.match(self.text, start):
                self.at = start + 1 if is_postfix else match.end()
                return Token(
                    "mark" if is_postfix else kind, self.text[start:self.at], start, self.at,
                    has_blank, is_new)
        self.at += 1
        return Token("mark", mark, start, self.at, has_blank, is_new)

    def string(self, quote, has_blank, is_new):
        token = Token("string", "", quote.start(), 0, has_blank, is_new)
        hashes, ends = quote.group(1), quote.group(2) + quote.group(1)
        self.at = quote.end()
        while not self.text.startswith(ends, self.at):
            if self.at >= len(self.text):
                raise Unreadable("a string does not end")
            if not self.text.startswith("\\" + hashes, self.at):
                self.at += 1
                continue
            self.at += 1 + len(hashes)
            start = self.at
            self.at += 1
            if self.text[start] == "(":
                inner = self.tokens(")")
                token.inner.append(Token("(", "(", start, self.at, False, False, inner=inner))
        self.at += len(ends)
        token.end, token.text = self.at, self.text[token.start:self.at]
        return token


def read(text):
    return Reader(text).tokens()


def is_label(statement):
    """Whether the statement is a switch's `case …:` or `default:`."""
    return statement[0].text in ("case", "default", "@unknown") and statement[-1].text == ":"


def statements(tokens):
    """The statements of a block. Each label of a switch is a statement; a closure's parameters
    belong to none."""
    found, current = [], []
    for token in tokens[header(tokens):]:
        if current and (token.text == ";" or token.on_new_line and not goes_on(current, token)):
            found.append(current)
            current = []
        if token.text == ";":
            continue
        current.append(token)
        if token.text == ":" and not token.after_blank and is_label(current):
            found.append(current)
            current = []
    return found + [current] if current else found


def header(tokens):
    """How many tokens declare a closure's parameters, including `in`."""
    for index, token in enumerate(tokens):
        if token.text == "in" and token.kind == "word":
            return 0 if any(other.text == "for" for other in tokens[:index]) else index + 1
        if token.kind == "{" or index and token.on_new_line:
            return 0
    return 0


def goes_on(statement, token):
    """Whether `token`, the first one of a line, continues the statement."""
    last = statement[-1]
    if last.is_binary or last.text in (",", "=") or last.text in UNFINISHED:
        return True
    if last.text == ":":
        return True
    if token.kind == "operator":
        return token.before_blank or token.text == "."
    return token.kind == "{" or token.text in CONTINUING or token.text == ":"


def contains(tokens, word, within="([{"):
    """Whether the tokens contain the word, also inside groups of these kinds."""
    return any(
        token.text == word and token.kind == "word"
        or (token.kind in within or token.kind == "string") and contains(
            token.inner, word, within)
        for token in tokens)
