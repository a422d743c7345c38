"""Tests the mutation of Swift sources and the list of equivalent mutants."""

import os
import subprocess

import pytest

import mutants
import mutations
from planted import Fault

SWIFT = """\
struct Facts: Sendable {
    let isReady: Bool
    let isOld: Bool
    var name: String? = "a"  // if this were a condition

    func judge() throws -> String {
        guard isReady && name != "d" else { return "not ready" }
        if let name, name == "a" || isOld, name != "b" {
            return "named \\(isOld ? "old" : "young")"
        } else if case nil = name { return "nameless" }
        switch name {
        case "b"? where isOld: return "old b"
        default: return name == "b" ? "young b" : "else"
        }
    }
}

func act(_ say: @escaping @Sendable (String) -> Void) async {
    let add = { @Sendable (word: String) async in
        say(word)
    }
    await add("one")
    await add("two")
    for word in ["three", "four"] where word != "four" { await add(word) }
}
"""


def found(text):
    return [(one.what, one.kind) for one in mutations.File("A.swift", text).mutants]


def test_conditions_are_forced_and_their_parts_in_the_way_that_matters():
    assert found("func f() { guard a else { return } }") == [
        ("a", "always true"), ("a", "always false")]
    assert found("func f() { if a, b { return } }") == [
        ("a, b", "always false"), ("a", "always true"), ("b", "always true")]
    assert found("var v: Bool { a && (b || c) }") == [
        ("a && (b || c)", "always false"), ("a", "always true"), ("(b || c)", "always true"),
        ("b || c", "always true"), ("b", "always false"), ("c", "always false")]
    assert found("func f() { while let a = b, c {} }") == [
        ("let a = b, c", "always false"), ("c", "always true")]
    assert found("func f() { if case .a = b {} }") == [
        ("case .a = b", "always false"), ("case .a = b", "always true")]
    assert found("let x =\n    try a == b\n    ? c : d\nlet y = e") == [
        ("a == b", "always true"), ("a == b", "always false")]
    assert found("func f() { switch a { case .b where c: d() default: e() } }") == [
        ("c", "always true"), ("c", "always false")]
    assert found("func f<T>(_ a: T) where T: P {}") == []
    assert found('let s = "\\(a ? "b" : "c"), if d { e }"') == [
        ("a", "always true"), ("a", "always false")]
    assert found("func f() { while true { } }") == []


def test_what_waits_is_left_out_and_swapped_with_its_neighbour():
    assert found("func f() {\n    try await a()\n    _ = try? await b()\n    let c = await d()\n}") == [
        ("try await a()", "left out"), ("try await a()", "swapped with the next"),
        ("_ = try? await b()", "left out")]
    assert found("func f() {\n    await a()\n    let b = 1\n    await c(b)\n}") == [
        ("await a()", "left out"), ("await c(b)", "left out")]
    assert found("func f() {\n    await a()\n    await a()\n}") == [
        ("await a()", "left out"), ("await a()", "left out (2)")]
    assert found("func f() { Task { await a() } }") == [("await a()", "left out")]
    assert found("func f() { return await a() }") == []
    assert found("func f() {\n    guard try await a() else { return }\n    b = await c()\n}") == [
        ("guard try await a() else { return }", "swapped with the next"),
        ("a()", "always true"), ("a()", "always false")]


def test_what_declares_a_name_for_those_after_it_stays_where_it_is():
    assert ("swapped with the next" not in [kind for _, kind in found("""
func f() {
    guard let a = try await b() else { return }
    await c(a)
}
""")])


def test_a_condition_is_made_false_before_its_first_clause():
    file = mutations.File("A.swift", "func f() { if a, let b { } }")
    for number, mutant in enumerate(file.mutants, 1):
        mutant.number = number
    text, _ = file.mutated(set(file.mutants))
    assert "if !mutantIsOn(1), mutantTrue(2, a), let b {" in text


def test_what_reads_alike_in_a_function_is_told_apart():
    assert found("func f() { if a {}; if a {} }") == [
        ("a", "always true"), ("a", "always false"), ("a", "always true (2)"),
        ("a", "always false (2)")]


def test_a_mutant_is_named_by_what_stays_when_lines_move():
    one, = mutations.File("A.swift", "extension V {\n    func f() {\n        await a()\n    }\n}").mutants
    assert one.key == ("A.swift", "V.f", "await a()", "await a()", "left out")
    assert one.line_number == 3


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    """Compiles SWIFT with all of its mutants: what a program says when one of them is on."""
    folder = tmp_path_factory.mktemp("mutated")
    file = mutations.File("A.swift", SWIFT)
    file.plant(Fault("five", "A.swift", 'say(word)', 'if ON { say("five") } else { ', " }"))
    for number, mutant in enumerate(file.mutants, 1):
        mutant.number = number
    text, _ = file.mutated(set(file.mutants))
    (folder / "A.swift").write_text(text.replace("\nimport Base\n", "\n"))
    (folder / "Mutants.swift").write_text(mutations.SUPPORT)
    (folder / "main.swift").write_text("""\
for isReady in [true, false] {
    for isOld in [true, false] {
        for name in ["a", "b", "c", "d", nil] {
            print(try Facts(isReady: isReady, isOld: isOld, name: name).judge())
        }
    }
}
await act { print($0) }
""")
    program = folder / "program"
    subprocess.run(
        ["swiftc", "-swift-version", "6", "-package-name", "p", "-o", program,
         *sorted(folder.glob("*.swift"))], check=True)

    def said(number=0):
        return subprocess.run(
            [program], check=True, capture_output=True, text=True,
            env={**os.environ, "MUTANT": str(number)}).stdout.splitlines()

    said.mutants = file.mutants
    return said


def test_without_a_mutant_the_program_is_as_it_was(play):
    assert play() == [
        "named old", "old b", "named old", "not ready", "nameless",
        "named young", "young b", "else", "not ready", "nameless",
        *["not ready"] * 10, "one", "two", "three"]


def test_a_mutant_changes_what_it_says(play):
    plain = play()

    def mutated(what, kind):
        return play(next(
            one.number for one in play.mutants if (one.what, one.kind) == (what, kind)))

    assert mutated("isReady", "always true") == plain[:10] * 2 + plain[20:]
    assert mutated("isOld", "always false")[2] == "else"
    assert mutated('await add("one")', "swapped with the next")[-3:] == ["two", "one", "three"]
    assert mutated('await add("one")', "left out")[-3:] == plain[-4:-3] + ["two", "three"]
    assert mutated('word != "four"', "always true")[-1] == "four"
    assert mutated("five", "planted")[-3:] == ["five"] * 3


def test_each_mutant_of_the_program_makes_a_difference(play):
    plain = play()
    assert [str(one) for one in play.mutants if play(one.number) == plain] == []


def test_what_the_compiler_refuses_is_blamed_on_the_mutant_that_it_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "PACKAGE", tmp_path)
    file = mutations.File("A.swift", "func f() {\n    if ä { g() }\n    if b { h() }\n}\n")
    for number, mutant in enumerate(file.mutants, 1):
        mutant.number = number
    text, ranges = file.mutated(set(file.mutants))
    (tmp_path / "Sources").mkdir()
    (tmp_path / "Sources/A.swift").write_text(text)
    line = text.splitlines()[2]
    column = len(line[:line.index("b)")].encode()) + 1
    output = f"{tmp_path}/Sources/A.swift:3:{column}: error: no\n"
    assert [str(one) for one in mutants.blamed(file, ranges, output, set())] == [
        "A.swift:3: f: b: always false"]


def run(program, *more):
    return mutants.run(["sh", "-c", program], 1, lambda line: line == "enough\n", *more)


def test_a_run_ends_by_itself_or_with_the_line_that_is_enough():
    assert run("true") == ("passed", [])
    assert run("echo a; exit 3") == ("ended with 3", ["a\n"])
    assert run("echo enough; while :; do :; done") == ("failed", ["enough\n"])
    assert run("echo $MUTANT", 7) == ("passed", ["7\n"])


def test_a_run_that_goes_on_for_ever_is_ended(monkeypatch):
    monkeypatch.setattr(mutants, "IDLE_SECONDS", 3)
    assert run("sleep 1000") == ("waits for ever", [])
    # A program that uses CPU time for longer than that is not waiting.
    assert run("while :; do :; done") == ("runs in circles", [])
    monkeypatch.setattr(mutants, "CLOCK_SECONDS", 0.1)
    assert run("while :; do :; done") == ("waits for ever", [])


def test_a_run_that_others_have_ended_is_no_verdict(tmp_path):
    once = tmp_path / "once"
    assert run(f"[ -e {once} ] || {{ touch {once}; kill -TERM $$; }}") == ("passed", [])
    with pytest.raises(RuntimeError, match="3 times"):
        run("kill -KILL $$")


def result(lives, tests):
    return mutants.Result(lives=lives, tests=tests)


def test_the_report_wants_each_survivor_listed_and_each_entry_a_survivor():
    file = mutations.File("A.swift", "func f() { if a {} }")
    true, false = file.mutants
    results = {
        true: result(mutants.KILLED, mutants.SURVIVED),
        false: result(mutants.SURVIVED, mutants.UNREACHED)}

    def told(entries, is_whole=True):
        return mutants.report(file.mutants, results, [], [], entries, is_whole)

    lines, is_well = told({})
    assert not is_well and lines[0].startswith("SURVIVED: A.swift:1: f: a: always false")
    assert told({false.key: "why"})[1]
    assert not told({false.key: "why", true.key: "why"})[1]
    gone = ("A.swift", "g", "if a {}", "a", "always true")
    assert not told({false.key: "why", gone: "why"})[1]
    assert told({false.key: "why", gone: "why"}, is_whole=False)[1]
    assert not mutants.report(file.mutants, results, [], ["x"], {false.key: "why"}, True)[1]


def test_entries_are_read_as_the_report_writes_them(tmp_path, monkeypatch):
    mutant, _ = mutations.File("A.swift", "func f() { if a == \"'\" {} }").mutants
    file = tmp_path / "list.toml"
    monkeypatch.setattr(mutants, "LIST", file)
    file.write_text(mutants.as_entry(mutant).replace('reason = ""', 'reason = "why"'))
    assert mutants.listed() == {mutant.key: "why"}
    file.write_text(mutants.as_entry(mutant))
    with pytest.raises(LookupError, match="no reason"):
        mutants.listed()


def test_each_entry_and_each_planted_fault_is_about_the_source_as_it_is():
    files, gone = mutants.find_mutants()
    assert gone == []
    keys = {mutant.key for file in files for mutant in file.mutants}
    assert [key for key in mutants.listed() if key not in keys] == []
    # Two mutants of a build with the same key would share one result.
    assert len(keys) == sum(len(file.mutants) for file in files)


def test_survivors_are_those_of_the_last_run_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "WORK", tmp_path)
    one, two = mutations.File("A.swift", "func f() { if a {} }").mutants
    assert mutants.survivors() == set()
    mutants.remember_survivors([one, two], [one])
    mutants.remember_survivors([two], [two])
    assert mutants.survivors() == {one.key, two.key}
    mutants.remember_survivors([one], [])
    assert mutants.survivors() == {two.key}


def test_lines_that_were_changed_choose_mutants(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t", *words], cwd=tmp_path, check=True,
            capture_output=True)

    folder = tmp_path / "Sources/Agent"
    folder.mkdir(parents=True)
    (folder / "A.swift").write_text("func f() {\n    if a {}\n    if b {}\n}\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "m")
    (folder / "A.swift").write_text("func f() {\n    if a {}\n    if c {}\n}\n")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    assert mutants.changed_lines("HEAD") == {"Agent/A.swift": {3}}
