"""Finds the possible mutations of a Swift file, and rewrites the file so that it contains all of
them.

The program reads the number of the active mutant from its environment when it starts, so one build
contains all mutants.

A mutation forces a condition to a value: the conditions of `if`, `guard`, `while`, ternaries and
`where`, and the operands of `&&` and `||` anywhere. An operand of `&&` is forced to true, one of
`||` to false, and a whole condition to both. A condition that binds a name can only be forced to
false. A statement that contains `await` and whose value is unused is left out, and two such
statements in a row are swapped.
"""

import dataclasses
import re

import swift_source

DECLARING = {"let", "var", "func", "init", "subscript", "struct", "class", "actor", "enum",
    "extension", "protocol", "typealias", "import", "deinit", "case", "default"}
LEAVING = {"return", "throw", "break", "continue", "fallthrough", "defer"}
CONTROL = {"if", "guard", "while", "for", "switch", "do", "repeat"}
MODIFIERS = {"private", "fileprivate", "internal", "package", "public", "static", "mutating",
    "nonisolated", "isolated", "final", "override", "indirect", "lazy", "weak", "unowned",
    "consuming", "borrowing", "convenience", "required", "nonmutating"}
TYPES = {"struct", "class", "actor", "enum", "extension", "protocol"}
# Tokens that delimit an operand, in addition to the brackets around it.
BOUNDS = {",", ";", "=", "return", "in", "throw", "try", "await", "case", "let", "var", "where", "if",
    "guard", "while", "else", "yield", "+=", "-=", "*=", "/="}

# The names of the functions in the mutated source. Nothing else in it has these names.
IS_ON, TRUE, FALSE = "mutantIsOn", "mutantTrue", "mutantFalse"

SUPPORT = f"""\
import Glibc

/// The number of the active mutant; 0 if there is none.
private let mutantOn: Int =
    getenv("MUTANT").flatMap {{ Int(String(cString: $0)) }} ?? 0

/// One byte per mutant, in the file that MUTANTS_REACHED names: 1 if the mutant would have made a
/// difference in this run.
nonisolated(unsafe) private let mutantsReached: UnsafeMutablePointer<UInt8>? = {{
    guard let path = getenv("MUTANTS_REACHED") else {{ return nil }}
    let file = open(path, O_RDWR)
    var status = stat()
    guard file >= 0, fstat(file, &status) == 0 else {{ return nil }}
    let memory = mmap(nil, Int(status.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
    return memory == MAP_FAILED ? nil : memory?.assumingMemoryBound(to: UInt8.self)
}}()

package func {IS_ON}(_ mutant: Int) -> Bool {{
    if let mutantsReached {{ mutantsReached[mutant] = 1 }}
    return mutant == mutantOn
}}

package func {TRUE}(_ mutant: Int, _ value: Bool) -> Bool {{ value || {IS_ON}(mutant) }}
package func {FALSE}(_ mutant: Int, _ value: Bool) -> Bool {{ value && !{IS_ON}(mutant) }}
"""


@dataclasses.dataclass(eq=False)
class Mutant:
    """`line` is the source line on which the mutated text begins, and `what` is that text."""
    file: str
    function: str
    line: str
    what: str
    kind: str
    line_number: int
    start: int
    last_line_number: int = 0
    number: int = 0

    @property
    def key(self):
        return (self.file, self.function, self.line, self.what, self.kind)

    def __str__(self):
        return f"{self.file}:{self.line_number}: {self.function}: {self.what}: {self.kind}"


@dataclasses.dataclass(eq=False)
class Edit:
    """Inserts text before and after a range. With `run`, it repeats a series of statements, once in
    each order; `mutants` then has an entry for each pair of neighbours, None if there is no mutant
    for it."""
    start: int
    end: int
    mutants: list
    before: str = ""
    after: str = ""
    run: list = None


class File:
    """A source file and its mutants; it can render the text with a selection of them.

    `known` lists the functions of all files. If a block consists only of a call of a function that
    returns a value, the call is the block's value and cannot be left out.
    """

    def __init__(self, name, text, known=()):
        self.name, self.text, self.functions = name, text, known
        self.mutants, self.edits = [], []
        self.block(swift_source.read(text), [])
        self.tell_doubles_apart()

    # Finding

    def block(self, tokens, path):
        found = swift_source.statements(tokens)
        run = []
        for statement in found:
            is_value = len(found) == 1 and is_call_for_value(statement, self.functions)
            self.statement(statement, path + names(statement, path), is_value)
            if is_waiting(statement):
                run.append(statement)
            else:
                self.swap(run, path)
                run = []
        self.swap(run, path)

    def statement(self, tokens, path, is_value):
        if may_be_left_out(tokens) and not is_value:
            mutant = self.mutant(path, tokens, "left out")
            self.edit(tokens, [mutant], f"if !{IS_ON}({{0}}) {{{{ ", " }}")
        for index, condition in conditions(tokens):
            self.conditional(tokens[index].text, condition, path)
        for segment in unconditional(tokens):
            self.expression(segment, path)
        self.groups(tokens, path)

    def groups(self, tokens, path):
        for token in tokens:
            if token.kind == "{":
                self.block(token.inner, path)
            elif token.kind == "string":
                self.groups(token.inner, path)
            elif token.kind in "([":
                self.expression(token.inner, path)
                self.groups(token.inner, path)

    def conditional(self, keyword, tokens, path):
        if keyword == "where":
            return self.boolean(tokens, path)
        clauses = split(tokens, {","})
        if len(clauses) == 1 and not binds(clauses[0]):
            return self.boolean(clauses[0], path)
        if tokens[0].text.startswith("#"):
            return None
        mutant = self.mutant(path, tokens, "always false")
        self.edits.append(Edit(
            tokens[0].start, tokens[0].start, [mutant], f"!{IS_ON}({{0}}), "))
        for clause in clauses:
            if not binds(clause):
                self.boolean(clause, path, with_false=len(clauses) == 1)
            else:
                self.pattern(clause, path)
                self.expression(clause, path)
        return None

    def pattern(self, clause, path):
        """`case .a = b` that binds no name and does not wait is a Boolean value too."""
        is_plain = not any(
            swift_source.contains(clause, word) for word in ("let", "var", "try", "await"))
        if clause[0].text == "case" and is_plain:
            mutant = self.mutant(path, clause, "always true")
            self.edit(
                clause, [mutant], f"{TRUE}({{0}}, {{{{ if ",
                " {{ true }} else {{ false }} }}())")

    def expression(self, tokens, path):
        """Mutates ternaries and the operands of `&&` and `||`, without descending into groups."""
        for part, end in operands(tokens):
            is_condition = end is not None and is_ternary(end)
            if is_condition or any(is_logical(token) for token in part):
                self.boolean(part, path, inner=False)

    def boolean(self, tokens, path, with_true=True, with_false=True, inner=True):
        """Forces a condition, or its operands, to true or false."""
        if inner:
            if any(is_ternary(token) for token in tokens):
                self.expression(tokens, path)
                return self.force(tokens, path, with_true, with_false)
            while tokens[0].text in ("try", "await"):
                tokens = tokens[1:]
        for operator, value in (("||", True), ("&&", False)):
            parts = split(tokens, {operator})
            if len(parts) > 1:
                self.force(tokens, path, value and with_true, not value and with_false)
                for part in parts:
                    self.boolean(part, path, with_true=not value, with_false=value)
                return None
        return self.force(tokens, path, with_true, with_false)

    def force(self, tokens, path, with_true, with_false):
        if [token.text for token in tokens] == ["true"]:
            return
        for is_wanted, kind, name in ((with_true, "always true", TRUE),
                                      (with_false, "always false", FALSE)):
            if is_wanted:
                self.edit(tokens, [self.mutant(path, tokens, kind)], f"{name}({{0}}, ", ")")

    def swap(self, run, path):
        """Swaps each two neighbours in a series of statements that wait, unless they are
        identical."""
        if len(run) < 2:
            return
        texts = [self.text[one[0].start:one[-1].end] for one in run]
        mutants = [
            self.mutant(path, one, "swapped with the next") if text != following else None
            for one, text, following in zip(run, texts, texts[1:])]
        self.edits.append(Edit(
            run[0][0].start, run[-1][-1].end, mutants,
            run=[(one[0].start, one[-1].end) for one in run]))

    def edit(self, tokens, mutants, before, after):
        self.edits.append(Edit(tokens[0].start, tokens[-1].end, mutants, before, after))

    def mutant(self, path, tokens, kind):
        start, end = tokens[0].start, tokens[-1].end
        first = self.text.rfind("\n", 0, start) + 1
        line = self.text[first:self.text.find("\n", start)].strip()
        what = re.sub(r"\s+", " ", self.text[start:end])
        mutant = Mutant(
            self.name, ".".join(path) or "-", line,
            what if len(what) <= 100 else what[:99] + "…", kind,
            self.text.count("\n", 0, start) + 1, start,
            self.text.count("\n", 0, end) + 1)
        self.mutants.append(mutant)
        return mutant

    def tell_doubles_apart(self):
        """Numbers mutants that would otherwise have the same key."""
        self.mutants.sort(key=lambda mutant: mutant.start)
        seen = {}
        for mutant in self.mutants:
            count = seen[mutant.key] = seen.get(mutant.key, 0) + 1
            if count > 1:
                mutant.kind += f" ({count})"

    # Planting

    def plant(self, fault):
        """Adds a fault from planted.py, around a text that occurs exactly once."""
        start = self.text.index(fault.text)
        mutant = Mutant(
            self.name, "planted", fault.text.splitlines()[0].strip(), fault.name, "planted",
            self.text.count("\n", 0, start) + 1, start)
        self.mutants.append(mutant)
        self.edits.append(Edit(
            start, start + len(fault.text), [mutant], escaped(fault.before), escaped(fault.after)))

    # Writing

    def mutated(self, wanted):
        """(the text with these mutants, the ranges of each mutant in it by its number)"""
        edits = []
        for edit in self.edits:
            if edit.run is not None or any(mutant in wanted for mutant in edit.mutants):
                edits.append(edit)
        # Outer edits first. An insertion before a condition's first clause precedes the edits of
        # that clause.
        edits.sort(key=lambda edit: (edit.start, edit.start != edit.end, -edit.end))
        marked = self.rendered(0, len(self.text), edits, wanted)
        text, ranges = unmarked(marked)
        if not re.search(r"^(package |public )?import Base$", text, re.MULTILINE):
            # At the end, so that the ranges remain valid; Swift accepts imports anywhere.
            text += "\nimport Base\n"
        return text, ranges

    def rendered(self, start, end, edits, wanted):
        """The text from start to end with its edits applied, and with marks around each mutant."""
        inside = [edit for edit in edits if start <= edit.start and edit.end <= end]
        pieces, at = [], start
        while inside:
            edit = inside.pop(0)
            nested = [other for other in inside if other.end <= edit.end]
            inside = [other for other in inside if other not in nested]
            if edit.start < at:
                raise swift_source.Unreadable(f"{self.name}: an edit at {edit.start} is half in another")
            pieces.append(self.text[at:edit.start])
            pieces.append(self.applied(edit, nested, wanted))
            at = edit.end
        pieces.append(self.text[at:end])
        return "".join(pieces)

    def applied(self, edit, nested, wanted):
        if edit.run is not None:
            return self.swapped(edit, nested, wanted)
        number = edit.mutants[0].number
        return (mark(number) + edit.before.format(number)
                + self.rendered(edit.start, edit.end, nested, wanted)
                + edit.after.format(number) + mark(-number))

    def swapped(self, edit, nested, wanted):
        mutants = [mutant for mutant in edit.mutants if mutant in wanted]
        if not mutants:
            return self.rendered(edit.start, edit.end, nested, wanted)
        texts = [self.rendered(start, end, nested, wanted) for start, end in edit.run]
        orders = []
        for mutant in mutants:
            first = edit.mutants.index(mutant)
            order = list(texts)
            order[first], order[first + 1] = order[first + 1], order[first]
            orders.append(
                f"if {IS_ON}({mutant.number}) {{\n" + mark(mutant.number) + "\n".join(order)
                + mark(-mutant.number) + "\n}")
        orders.append("{\n" + "\n".join(texts) + "\n}")
        return " else ".join(orders)


# Classifying tokens and statements


def is_ternary(token):
    return token.text == "?" and token.is_binary


def is_logical(token):
    return token.kind == "operator" and token.text in ("&&", "||")


def binds(clause):
    return clause[0].text in ("let", "var", "case") or clause[0].text.startswith("#")


def first_word(statement):
    """The word that determines the kind of the statement: the first one after attributes and
    modifiers."""
    for token in statement:
        if token.text in MODIFIERS or token.text.startswith("@") or token.kind == "(":
            continue
        return token.text
    return ""


def names(statement, path):
    """The name that the statement declares for the contents of its braces; none for a local
    value."""
    word = first_word(statement)
    texts = [token.text for token in statement]
    if word in TYPES or word == "func":
        index = texts.index(word) + 1
        name = texts[index]
        while texts[index + 1:index + 2] == ["."]:
            index += 2
            name += "." + texts[index]
        return [name]
    if word in ("init", "subscript"):
        return [word]
    if word in ("let", "var") and not (path and path[-1][:1].islower()):
        return [texts[texts.index(word) + 1]]
    return []


def functions(text):
    """(name, labels of its parameters, whether it returns a value) of each function in the text."""
    found = []
    for declaration in re.finditer(r"\bfunc\s+(\w+)", text):
        reader = swift_source.Reader(text)
        reader.at, labels, returns = declaration.end(), None, False
        while not returns:
            if reader.skip_blanks() and labels is not None and text[reader.at:reader.at + 2] != "->":
                break
            token = reader.token([], True, False)
            if token.kind == "(" and labels is None:
                labels = [part[0].text for part in split(token.inner, {","}) if part]
            returns = token.text == "->"
            if token.kind == "{":
                break
        found.append((declaration.group(1), labels or [], returns))
    return found


def is_call_for_value(statement, known):
    """Whether the last function that the statement calls is known to return a value, and the value
    is not discarded."""
    if statement[0].text == "_":
        return False
    for token, group in zip(reversed(statement[:-1]), reversed(statement[1:])):
        if token.kind == "word" and group.kind == "(":
            given = [
                part[0].text if len(part) > 1 and part[1].text == ":" else "_"
                for part in split(group.inner, {","}) if part]
            fitting = [
                returns for name, labels, returns in known
                if name == token.text and is_part(given, labels)]
            return bool(fitting) and all(fitting)
    return False


def is_part(some, all_of_them):
    """Whether these labels occur in this order. Others may be in between, because parameters with
    defaults can be omitted."""
    rest = iter(all_of_them)
    return all(one in rest for one in some)


def is_assignment(statement):
    return any(
        token.kind == "operator" and token.text in ("=", "+=", "-=", "*=", "/=")
        for token in statement)


def may_be_left_out(statement):
    """Whether the statement contains `await` and nothing depends on its value."""
    if swift_source.is_label(statement) or first_word(statement) in (
            DECLARING | LEAVING | CONTROL):
        return False
    is_thrown_away = [token.text for token in statement[:2]] == ["_", "="]
    return (is_thrown_away or not is_assignment(statement)) and swift_source.contains(
        statement, "await", within="([")


def is_waiting(statement):
    """Whether the statement waits and can be moved into a branch: it declares nothing that later
    statements use, and control continues after it."""
    word = first_word(statement)
    if swift_source.is_label(statement) or word in DECLARING | LEAVING:
        return False
    if word == "guard" and any(token.text in ("let", "var") for token in statement):
        return False
    return swift_source.contains(statement, "await", "([{" if word in CONTROL else "([")


def conditions(statement):
    """(index of the keyword, tokens of the condition) of a statement's own conditions."""
    is_generic = first_word(statement) in (DECLARING - {"let", "var", "case", "default"})
    index = 0
    while index < len(statement):
        token = statement[index]
        is_member = index and statement[index - 1].text == "."
        if token.kind == "word" and not is_member and not is_generic:
            end = None
            if token.text in ("if", "while"):
                end = next_index(statement, index, lambda one: one.kind == "{")
            elif token.text == "guard":
                end = next_index(statement, index, lambda one: one.text == "else")
            elif token.text == "where":
                end = next_index(
                    statement, index,
                    lambda one: one.kind == "{" or one.text in (",", ":") and not one.after_blank)
            if end is not None:
                yield index, statement[index + 1:end]
                index = end
                continue
        index += 1


def next_index(statement, start, is_end):
    for index in range(start + 1, len(statement)):
        if is_end(statement[index]):
            return index
    return len(statement)


def unconditional(statement):
    """The pieces of a statement that are not part of its conditions."""
    at, pieces = 0, []
    for index, condition in conditions(statement):
        pieces.append(statement[at:index])
        at = index + 1 + len(condition)
    return [piece for piece in pieces + [statement[at:]] if piece]


def split(tokens, marks):
    """Splits the tokens at the marks. Tokens with a ternary are only split at commas, because `?:`
    binds less tightly than any operator."""
    if any(is_ternary(token) for token in tokens) and "," not in marks:
        return [tokens]
    parts = [[]]
    for token in tokens:
        if token.text in marks and token.kind in ("operator", "mark"):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def operands(tokens):
    """(tokens, the token that ends them) of each operand of `&&`, `||` or `?:`, on one level."""
    part = []
    for index, token in enumerate(tokens):
        is_bound = token.text in BOUNDS and token.kind != "string" or is_ternary(token)
        is_optional_try = (
            token.text == "?" and not token.after_blank and not part and index
            and tokens[index - 1].text == "try")
        begins = token.on_new_line and part and not swift_source.goes_on(part, token)
        if begins:
            yield part, None
            part = []
        if is_bound or is_optional_try or token.text == ":":
            if part:
                yield part, token
            part = []
        else:
            part.append(token)
    if part:
        yield part, None


def escaped(text):
    """A planted text as a format string, in which ON becomes the test of whether the mutant is
    active."""
    doubled = text.replace("{", "{{").replace("}", "}}")
    return re.sub(r"\bON\b", f"{IS_ON}({{0}})", doubled)


# Marks in a text that is being rendered. They are private-use characters, which no source contains.
MARK = re.compile("\U000F0000(-?[0-9]+)\U000F0001")


def mark(number):
    return f"\U000F0000{number}\U000F0001"


def unmarked(marked):
    """(the text without marks, the ranges of each mutant in it, in bytes, by its number)"""
    pieces, ranges, begun, at, size = [], {}, {}, 0, 0
    for found in MARK.finditer(marked):
        piece = marked[at:found.start()]
        pieces.append(piece)
        size += len(piece.encode())
        at = found.end()
        number = int(found.group(1))
        if number > 0:
            begun.setdefault(number, []).append(size)
        else:
            ranges.setdefault(-number, []).append((begun[-number].pop(), size))
    return "".join(pieces) + marked[at:], ranges
