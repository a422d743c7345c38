#!/usr/bin/python3
"""Mutates every condition and every wait of Agent and VolumeCore, and expects lives or tests to
detect it.

`make sim-mutants` calls it. mutations.py says what is mutated, planted.py adds faults by hand. All
mutants are compiled into one copy of the package, in .build/mutants; what does not compile is left
out. Each mutant is then played by lives and run by AgentTests and VolumeCoreTests; what neither of
them notices is played by more lives. equivalent-mutants.toml names those that make no difference,
with the reason. Exits with 0 when no other one survives and every entry of that file stands for a
survivor.

The report is in .build/mutants/report.txt too. A run that was interrupted goes on where it was.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import tomllib

import mutations
import planted
import swift_source

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / ".build/mutants"
PACKAGE = WORK / "package"
LIST = pathlib.Path(__file__).with_name("equivalent-mutants.toml")
MODULES = ["Agent", "VolumeCore"]
TESTS = ["AgentTests", "VolumeCoreTests"]
COPIED = ["Package.swift", "Package.resolved", "CShims", "Sources", "Tests", "docs"]
SUPPORT = "Sources/Base/Mutants.swift"
BUILD = ["swift", "build", "-c", "release", "-Xswiftc", "-enable-testing", "--build-tests"]
# Only what the lives and the tests are made of, and no warning is an error: mutants give many.
MANIFEST = f"""

var kept: Set = ["life-simulator", {", ".join(f'"{name}"' for name in TESTS)}]
for _ in package.targets {{
    for target in package.targets where kept.contains(target.name) {{
        for case .byNameItem(let name, _) in target.dependencies {{ kept.insert(name) }}
    }}
}}
package.targets.removeAll {{ !kept.contains($0.name) }}
for target in package.targets where target.swiftSettings != nil {{
    target.swiftSettings?.append(.treatAllWarnings(as: .warning))
}}
"""

# The first lives are for every mutant, the others for those that nothing has noticed.
BATCHES = [(1, 500), (501, 2_500), (3_001, 3_000)]
# A mutant may run in circles: it has this many times the time of the processor that is usual, and
# that much at least.
PATIENCE, PATIENCE_SECONDS = 5, 5
# Or it may wait for ever. On a machine that others use, too, the clock tells little: a mutant that
# uses the processor at all is only slow, and gets the longer time.
IDLE_SECONDS, CLOCK_SECONDS = 60, 600
MEMORY_MAX = 2 << 30
# How often a program is run again that something outside has ended.
RUNS_MAX = 3
# Rounds of leaving out what does not compile.
BUILDS_MAX = 40
KILLED, SURVIVED, UNREACHED = "killed", "survived", "unreached"


@dataclasses.dataclass
class Result:
    """What lives and tests made of a mutant: one of the three words, and what was seen."""
    lives: str = UNREACHED
    lives_saw: str = ""
    tests: str = UNREACHED
    tests_saw: str = ""
    # Whether all lives were played, unless it was killed before.
    is_final: bool = False

    @property
    def is_killed(self):
        return KILLED in (self.lives, self.tests)


# Building


def find_mutants():
    """(the files of the modules, their mutants numbered from 1; what cannot be planted)"""
    texts = {
        str(path.relative_to(ROOT / "Sources")): path.read_text()
        for module in MODULES for path in sorted((ROOT / "Sources" / module).rglob("*.swift"))}
    known = [function for text in texts.values() for function in mutations.functions(text)]
    files = [mutations.File(name, text, known) for name, text in texts.items()]
    gone = []
    for fault in planted.FAULTS:
        count = texts.get(fault.file, "").count(fault.text)
        if count == 1:
            next(file for file in files if file.name == fault.file).plant(fault)
        else:
            gone.append(f"{fault.name}: its text stands {count} times in {fault.file}")
    for number, mutant in enumerate((one for file in files for one in file.mutants), 1):
        mutant.number = number
    return files, gone


def copy_package(files):
    """Brings the copy up to date. What has not changed is not written, so that it is not built
    again; what is mutated is written by left_out_of_build."""
    contents = {}
    for name in COPIED:
        source = ROOT / name
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                contents[str(path.relative_to(ROOT))] = path.read_bytes()
    contents["Package.swift"] += MANIFEST.encode()
    contents[SUPPORT] = mutations.SUPPORT.encode()
    mutated = {f"Sources/{file.name}" for file in files}
    for name, content in contents.items():
        if name not in mutated:
            write(PACKAGE / name, content)
    for name in COPIED:
        for path in (PACKAGE / name).rglob("*"):
            if path.is_file() and str(path.relative_to(PACKAGE)) not in contents:
                path.unlink()


def write(path, content):
    """Writes a file unless it has that content already: the build takes a new one for changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def build_mutated(files):
    """Builds the copy with all mutants that compile; returns the others."""
    known = WORK / "not-compiling.json"
    sources = hashlib.sha256(repr([file.mutated(set(file.mutants)) for file in files]).encode())
    earlier = json.loads(known.read_text()) if known.exists() else {"sources": ""}
    if earlier["sources"] == sources.hexdigest():
        numbers = set(earlier["numbers"])
        dropped = left_out_of_build(
            files, {one for file in files for one in file.mutants if one.number in numbers})
    else:
        dropped = left_out_of_build(files, set())
        # A statement's mutant can cause an error inside another one's text.
        final = {mutant for mutant in dropped if mutant.kind.startswith(("left out", "swapped"))}
        if final != dropped:
            dropped = left_out_of_build(files, final)
    known.write_text(json.dumps({
        "sources": sources.hexdigest(), "numbers": sorted(one.number for one in dropped)}))
    return sorted(dropped, key=lambda mutant: mutant.number)


def left_out_of_build(files, dropped):
    """The mutants that do not compile, `dropped` and more; the others are built."""
    dropped = set(dropped)
    for _ in range(BUILDS_MAX):
        ranges = {}
        for file in files:
            wanted = {mutant for mutant in file.mutants if mutant not in dropped}
            text, ranges[file.name] = file.mutated(wanted)
            write(PACKAGE / "Sources" / file.name, text.encode())
        built = subprocess.run(BUILD, cwd=PACKAGE, text=True, capture_output=True, check=False)
        output = built.stdout + built.stderr
        if built.returncode == 0:
            return dropped
        culprits = {
            culprit for file in files
            for culprit in blamed(file, ranges[file.name], output, dropped)}
        if not culprits:
            raise RuntimeError(f"the mutated package does not build:\n{output[-4000:]}")
        say(f"{len(culprits)} mutants do not compile: left out")
        dropped |= culprits
    raise RuntimeError(f"the mutated package does not build after {BUILDS_MAX} attempts")


def blamed(file, ranges, output, dropped):
    """The mutants that the compiler's errors in the file are about."""
    path = PACKAGE / "Sources" / file.name
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    by_number = {mutant.number: mutant for mutant in file.mutants}
    found = set()
    for match in re.finditer(
            re.escape(str(path)) + r":(\d+):(\d+): error: ", output):
        line, column = int(match.group(1)), int(match.group(2))
        at = sum(map(len, lines[:line - 1])) + column - 1
        around = [
            (end - start, number) for number, pieces in ranges.items()
            for start, end in pieces if start <= at < end]
        before = [
            (at - end, number) for number, pieces in ranges.items()
            for start, end in pieces if end <= at]
        after = [
            (start - at, number) for number, pieces in ranges.items()
            for start, end in pieces if start > at]
        # The one that it is in; else the nearest before it, as where a name has no value now.
        for choice in (around, before, after):
            if choice:
                found.add(by_number[min(choice)[1]])
                break
    return found - dropped


# Running


def program(name):
    return str(next((PACKAGE / ".build/release").glob(name)))


def limited(seconds):
    """Limits the process that is about to be started."""
    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return limit


# How a program ends that another process has ended, or the kernel where memory is short.
OUTSIDE = [f"ended with {-number}" for number in (
    signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


def run(*arguments):
    """As run_once, and again where that was ended from outside, which is no mutant's doing."""
    for _ in range(RUNS_MAX):
        ended, output = run_once(*arguments)
        if ended not in OUTSIDE:
            return ended, output
    raise RuntimeError(f"{arguments[0][0]} {ended}, {RUNS_MAX} times: is the memory used up?")


RUNNING = set()
STOPPED = threading.Event()


def stop():
    """Ends what runs, and lets nothing more begin."""
    STOPPED.set()
    for process in list(RUNNING):
        process.kill()


def processor_ticks(pid):
    """How much a process has used of the processor; None once it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


def waits(process, is_over):
    """Returns when the process is over, False, or has waited for too long, True."""
    begin = last_work = time.monotonic()
    used = processor_ticks(process.pid)
    while not is_over.wait(IDLE_SECONDS / 20):
        now, before = time.monotonic(), used
        used = processor_ticks(process.pid)
        if used != before:
            last_work = now
        if now > min(last_work + IDLE_SECONDS, begin + CLOCK_SECONDS):
            return True
    return False


def run_once(command, seconds, is_enough, number=0, reached=None):
    """(what it ended with, its output), ended as soon as a line of it is enough.

    It may use the processor for so many seconds.
    """
    if STOPPED.is_set():
        raise RuntimeError("stopped")
    environment = {**os.environ, "MUTANT": str(number), "SWIFT_BACKTRACE": "enable=no"}
    if reached:
        environment["MUTANTS_REACHED"] = str(reached)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env=environment, start_new_session=True,
        preexec_fn=limited(seconds))
    RUNNING.add(process)
    is_late, is_over = threading.Event(), threading.Event()

    def end_if_it_waits():
        if waits(process, is_over):
            is_late.set()
            os.killpg(process.pid, signal.SIGKILL)

    watcher = threading.Thread(target=end_if_it_waits)
    watcher.start()
    output = []
    try:
        for line in process.stdout:
            output.append(line)
            if is_enough(line):
                process.kill()
                return "failed", output
        code = process.wait()
    finally:
        # Before the process is waited for, so that its number is no other's yet.
        is_over.set()
        watcher.join()
        process.stdout.close()
        process.wait()
        RUNNING.discard(process)
    if is_late.is_set():
        return "waits for ever", output
    if code == -signal.SIGXCPU:
        return "runs in circles", output
    return f"ended with {code}" if code else "passed", output


LIFE_BROKEN = re.compile(r"broken: (.*)")
TEST_FAILED = re.compile(r"Test (.*?) (?:recorded an issue|failed after)")


def play(batch, seconds, number=0, reached=None):
    """What lives noticed; an empty text: nothing."""
    first, count = batch
    ended, output = run(
        [program("life-simulator"), "--seed", str(first), "--runs", str(count)], seconds,
        LIFE_BROKEN.search, number, reached)
    return "" if ended == "passed" else saw(LIFE_BROKEN, ended, output)


def test(seconds, number=0, reached=None):
    """What tests noticed; an empty text: nothing."""
    ended, output = run(
        [program("*PackageTests.xctest"), "--testing-library", "swift-testing"], seconds,
        TEST_FAILED.search, number, reached)
    return "" if ended == "passed" else saw(TEST_FAILED, ended, output)


def saw(pattern, ended, output):
    for line in output:
        if match := pattern.search(line):
            return match.group(1).strip()
    fatal = [line.strip() for line in output if "Fatal error" in line]
    return f"{ended}: {fatal[0]}" if fatal else ended


def children_time():
    """Seconds of the processor that ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(work, count):
    """(seconds that `work` may take of the processor, the mutants' numbers that it reaches)

    One of `count` mutants that it does not reach while nothing is mutated cannot make a difference.
    """
    file = WORK / "reached"
    file.write_bytes(bytes(count + 1))
    before = children_time()
    broken = work(file)
    if broken:
        raise RuntimeError(f"without a mutant: {broken}")
    took = children_time() - before
    numbers = {number for number, byte in enumerate(file.read_bytes()) if byte}
    return round(max(PATIENCE_SECONDS, took * PATIENCE)), numbers


class Judge:
    """Runs mutants; the results go to a file, one a line, for a run that is interrupted."""

    def __init__(self, count, digest):
        self.test_seconds, self.by_tests = measure(lambda file: test(600, 0, file), count)
        self.batches = [
            (batch, *measure(lambda file, batch=batch: play(batch, 600, 0, file), count))
            for batch in BATCHES]
        self.path = WORK / f"results-{digest}.jsonl"
        for other in WORK.glob("results-*.jsonl"):
            if other != self.path:
                other.unlink()
        self.known = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                entry = json.loads(line)
                self.known[tuple(entry["key"])] = Result(**entry["result"])
        self.lock = threading.Lock()

    def judge(self, mutant, is_listed):
        """What becomes of a mutant; one that is listed as equivalent is not played for long."""
        known = self.known.get(mutant.key)
        if known and (known.is_final or is_listed):
            return known
        number, result = mutant.number, Result()
        self.play(self.batches[:1], number, result)
        if number in self.by_tests:
            result.tests_saw = test(self.test_seconds, number)
            result.tests = KILLED if result.tests_saw else SURVIVED
        if not result.is_killed and not is_listed:
            self.play(self.batches[1:], number, result)
        result.is_final = result.is_killed or not is_listed
        with self.lock, self.path.open("a") as file:
            entry = {"key": mutant.key, "result": dataclasses.asdict(result)}
            file.write(json.dumps(entry) + "\n")
        return result

    def play(self, batches, number, result):
        for batch, seconds, reached in batches:
            if number not in reached:
                continue
            result.lives_saw = play(batch, seconds, number)
            result.lives = KILLED if result.lives_saw else SURVIVED
            if result.lives_saw:
                return


# Choosing and listing


def changed_lines(revision):
    """{file: numbers of its lines that were changed since the revision}"""
    changes = subprocess.run(
        ["git", "diff", "-U0", revision, "--", *(f"Sources/{module}" for module in MODULES)],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found, file = {}, None
    for line in changes.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ b/Sources/")
        elif match := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, count = int(match.group(1)), int(match.group(2) or 1)
            found.setdefault(file, set()).update(range(first, first + count))
    return found


def chosen(mutants, arguments):
    """Those of the files that are named, and on the lines that were changed."""
    if arguments.files:
        mutants = [
            mutant for mutant in mutants if any(part in mutant.file for part in arguments.files)]
    if arguments.changed:
        lines = changed_lines(arguments.changed)
        mutants = [
            mutant for mutant in mutants
            if lines.get(mutant.file, set()) & set(
                range(mutant.line_number, max(mutant.line_number, mutant.last_line_number) + 1))]
    if arguments.survivors:
        last = survivors()
        mutants = [mutant for mutant in mutants if mutant.key in last]
    return mutants


def survivors():
    """The keys of those that survived when they were run last, listed ones aside."""
    file = WORK / "survivors.json"
    return {tuple(key) for key in json.loads(file.read_text())} if file.exists() else set()


def remember_survivors(mutants, open_ones):
    """Of those that were run now; what is known of others stays."""
    kept = survivors() - {mutant.key for mutant in mutants} | {mutant.key for mutant in open_ones}
    (WORK / "survivors.json").write_text(json.dumps(sorted(kept)))


ENTRY = ["file", "function", "line", "what", "kind"]


def listed():
    """{key of a mutant: why it is equivalent}"""
    entries = {}
    for entry in tomllib.loads(LIST.read_text()).get("equivalent", []):
        key = tuple(entry[name] for name in ENTRY)
        if not entry["reason"].strip():
            raise LookupError(f"{LIST.name}: no reason is given for {key}")
        if key in entries:
            raise LookupError(f"{LIST.name}: there are two entries for {key}")
        entries[key] = entry["reason"]
    return entries


def as_entry(mutant):
    """As equivalent-mutants.toml has it, but for the reason."""
    lines = [f"{name} = {quoted(value)}" for name, value in zip(ENTRY, mutant.key)]
    return "\n".join(["[[equivalent]]", *lines, 'reason = ""'])


def quoted(value):
    return f"'{value}'" if "'" not in value else json.dumps(value, ensure_ascii=False)


# Reporting


def report(mutants, results, dropped, gone, entries, is_whole):
    """(the report's lines, whether all is well)"""
    killed_by = collections.Counter(
        (results[one].lives == KILLED, results[one].tests == KILLED) for one in mutants)
    survivors = [one for one in mutants if not results[one].is_killed]
    open_ones = [one for one in survivors if one.key not in entries]
    keys = {one.key for one in mutants}
    survivor_keys = {one.key for one in survivors}
    wrong = []
    for key in entries:
        if key in keys and key not in survivor_keys:
            wrong.append((key, "it was killed"))
        elif key not in keys and is_whole:
            wrong.append((key, "there is no such mutant"))
    lines = []
    for mutant in open_ones:
        result = results[mutant]
        lines += [f"SURVIVED: {mutant} (lives: {result.lives}, tests: {result.tests})"]
    for mutant in dropped:
        lines.append(f"does not compile: {mutant}")
    lines += [f"NOT PLANTED: {words}" for words in gone]
    for key, why in wrong:
        lines.append(f"WRONG ENTRY in {LIST.name}: {why}: {' | '.join(key)}")
    if open_ones:
        lines += ["", f"Where one of them is equivalent, its entry in {LIST.name} is:"]
        for mutant in open_ones:
            lines += ["", as_entry(mutant)]
    lines += [
        "",
        f"{len(mutants)} mutants, {len(dropped)} more that do not compile",
        f"{killed_by[True, False] + killed_by[True, True]} killed by lives",
        f"{killed_by[False, True] + killed_by[True, True]} killed by tests",
        f"{killed_by[True, True]} of them killed by both",
        f"{len(survivors) - len(open_ones)} equivalent, with reasons",
        f"{len(open_ones)} surviving",
    ]
    return lines, not open_ones and not wrong and not gone


def say(text):
    print(text, flush=True)


def digest():
    """Changes with anything that the results depend on."""
    found = hashlib.sha256(repr(BATCHES).encode())
    for name in ("life-simulator", "*PackageTests.xctest"):
        found.update(pathlib.Path(program(name)).read_bytes())
    return found.hexdigest()[:16]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="only mutants of files whose names have this")
    parser.add_argument("--changed", metavar="REVISION", help="only those on lines changed since")
    parser.add_argument("--survivors", action="store_true", help="only those that survived last")
    parser.add_argument("--list", action="store_true", help="print the mutants, run none")
    parser.add_argument("--anew", action="store_true", help="use no results of an earlier run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at once")
    return parser.parse_args()


def main():
    arguments = parse()
    start = time.monotonic()
    (files, gone), entries = find_mutants(), listed()
    mutants = [mutant for file in files for mutant in file.mutants]
    if arguments.list:
        for mutant in chosen(mutants, arguments):
            print(mutant)
        return 0
    copy_package(files)
    dropped = build_mutated(files)
    if arguments.anew:
        for path in WORK.glob("results-*.jsonl"):
            path.unlink()
    say(f"{len(mutants)} mutants, built after {time.monotonic() - start:.0f} s")
    judge = Judge(len(mutants), digest())
    wanted = [mutant for mutant in chosen(mutants, arguments) if mutant not in dropped]
    results = {}
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        running = {
            pool.submit(judge.judge, mutant, mutant.key in entries): mutant for mutant in wanted}
        try:
            for done in concurrent.futures.as_completed(running):
                mutant = running[done]
                result = results[mutant] = done.result()
                if not result.is_killed and mutant.key not in entries:
                    say(f"{len(results)}/{len(wanted)} survives: {mutant}")
                elif len(results) % 50 == 0:
                    say(f"{len(results)}/{len(wanted)}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
    remember_survivors(
        wanted, [one for one in wanted if not results[one].is_killed and one.key not in entries])
    is_whole = not (arguments.files or arguments.changed or arguments.survivors)
    lines, is_well = report(wanted, results, dropped, gone, entries, is_whole)
    lines.append(f"{(time.monotonic() - start) / 60:.0f} minutes")
    (WORK / "report.txt").write_text("\n".join(lines) + "\n")
    say("\n".join(lines))
    return 0 if is_well else 1


if __name__ == "__main__":
    # In the background SIGINT may be ignored.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.default_int_handler)
    try:
        sys.exit(main())
    except (LookupError, RuntimeError, swift_source.Unreadable) as error:
        sys.exit(f"mutants: {error}")
    except KeyboardInterrupt:
        sys.exit("mutants: interrupted; the next run goes on from here")
