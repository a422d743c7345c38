#!/usr/bin/python3
"""Mutates every condition and every wait of Agent and VolumeCore, and expects simulated lives or
tests to detect each mutant.

`make sim-mutants` calls it. mutations.py defines the mutations, and planted.py adds hand-written
faults. All mutants are compiled into one copy of the package, in .build/mutants, without those that
do not compile. Each mutant is run through lives, AgentTests and VolumeCoreTests; if none of these
detects it, through more lives. equivalent-mutants.toml lists the mutants that make no difference,
with reasons. Exits with 0 if no other mutant survives and every entry of that file is a survivor.

The report is also written to .build/mutants/report.txt. An interrupted run resumes where it
stopped.
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
# Keeps only the targets that the lives and the tests need, and makes no warning an error, because
# mutants cause many.
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

# (first seed, number of lives). The first batch is for every mutant, the others for those that
# nothing has detected yet.
BATCHES = [(1, 500), (501, 2_500), (3_001, 3_000)]
# A mutant may loop: it gets this many times the usual CPU time, and at least this many seconds.
PATIENCE, PATIENCE_SECONDS = 5, 5
# Or it may wait for ever. On a busy machine the clock says little: a mutant that still uses CPU
# time is only slow, and gets the longer time.
IDLE_SECONDS, CLOCK_SECONDS = 60, 600
MEMORY_MAX = 2 << 30
# How often a program is run if something else on the machine ends it.
RUNS_MAX = 3
# Rounds of removing mutants that do not compile.
BUILDS_MAX = 40
KILLED, SURVIVED, UNREACHED = "killed", "survived", "unreached"


@dataclasses.dataclass
class Result:
    """The verdict of the lives and of the tests on a mutant, one of the three words, and what they
    reported."""
    lives: str = UNREACHED
    lives_saw: str = ""
    tests: str = UNREACHED
    tests_saw: str = ""
    # Whether the mutant was killed or all lives were run.
    is_final: bool = False

    @property
    def is_killed(self):
        return KILLED in (self.lives, self.tests)


# Building


def find_mutants():
    """(the modules' files, with their mutants numbered from 1; the faults that cannot be
    planted)"""
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
    """Updates the copy. Unchanged files are not written, so that they are not rebuilt; the mutated
    files are written by left_out_of_build."""
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
    """Writes a file unless it already has this content: the build goes by the time of a file."""
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
        # A mutant of a statement can cause an error within the text of another mutant, which was
        # then removed without need.
        final = {mutant for mutant in dropped if mutant.kind.startswith(("left out", "swapped"))}
        if final != dropped:
            dropped = left_out_of_build(files, final)
    known.write_text(json.dumps({
        "sources": sources.hexdigest(), "numbers": sorted(one.number for one in dropped)}))
    return sorted(dropped, key=lambda mutant: mutant.number)


def left_out_of_build(files, dropped):
    """Builds the package without the mutants that do not compile, and returns these; `dropped` are
    known not to."""
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
    """The mutants that have caused the compiler's errors in the file."""
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
        # The innermost mutant around the error; otherwise the nearest one before it, which may have
        # left a name without a value; otherwise the nearest one after it.
        for choice in (around, before, after):
            if choice:
                found.add(by_number[min(choice)[1]])
                break
    return found - dropped


# Running


def program(name):
    return str(next((PACKAGE / ".build/release").glob(name)))


def limited(seconds):
    """Returns a function that limits the process in which it is called."""
    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return limit


# How a program ends if another process ends it, or the kernel because memory is short.
OUTSIDE = [f"ended with {-number}" for number in (
    signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


def run(*arguments):
    """Calls run_once, and repeats it if something else has ended the program, which is not caused
    by the mutant."""
    for _ in range(RUNS_MAX):
        ended, output = run_once(*arguments)
        if ended not in OUTSIDE:
            return ended, output
    raise RuntimeError(f"{arguments[0][0]} {ended}, {RUNS_MAX} times: is the memory used up?")


RUNNING = set()
STOPPED = threading.Event()


def stop():
    """Kills all running programs, and lets no other one start."""
    STOPPED.set()
    for process in list(RUNNING):
        process.kill()


def processor_ticks(pid):
    """The CPU time of a process, in ticks; None if it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


def waits(process, is_over):
    """Returns False when the process has ended, or True when it has waited for too long."""
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
    """Runs a command, and returns (how it ended, its output). Kills it as soon as `is_enough` is
    true of a line of its output, or when it has used `seconds` of CPU time.
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
        # Before the process is reaped, so that no other process has its number yet.
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
    """What the lives reported; empty if they detected nothing."""
    first, count = batch
    ended, output = run(
        [program("life-simulator"), "--seed", str(first), "--runs", str(count)], seconds,
        LIFE_BROKEN.search, number, reached)
    return "" if ended == "passed" else saw(LIFE_BROKEN, ended, output)


def test(seconds, number=0, reached=None):
    """What the tests reported; empty if they detected nothing."""
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
    """The CPU time of all children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(work, count):
    """(the CPU seconds that `work` may take, the numbers of the mutants that it reaches)

    Of the `count` mutants, those that `work` does not reach without any mutation cannot make a
    difference to it.
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
    """Runs mutants. Results are appended to a file, one per line, so that an interrupted run can
    resume."""

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
        """The result of a mutant. A mutant that is listed as equivalent is run through the first
        lives only."""
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


# Selecting and listing


def changed_lines(revision):
    """{file: the numbers of its lines that have changed since the revision}"""
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
    """The mutants that the arguments select."""
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
    """The keys of the mutants that survived when they were last run, without the listed ones."""
    file = WORK / "survivors.json"
    return {tuple(key) for key in json.loads(file.read_text())} if file.exists() else set()


def remember_survivors(mutants, open_ones):
    """Records which of `mutants` survived; keeps what is recorded of others."""
    kept = survivors() - {mutant.key for mutant in mutants} | {mutant.key for mutant in open_ones}
    (WORK / "survivors.json").write_text(json.dumps(sorted(kept)))


ENTRY = ["file", "function", "line", "what", "kind"]


def listed():
    """{the key of a mutant: why it is equivalent}"""
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
    """The mutant's entry for equivalent-mutants.toml, with an empty reason."""
    lines = [f"{name} = {quoted(value)}" for name, value in zip(ENTRY, mutant.key)]
    return "\n".join(["[[equivalent]]", *lines, 'reason = ""'])


def quoted(value):
    return f"'{value}'" if "'" not in value else json.dumps(value, ensure_ascii=False)


# Reporting


def report(mutants, results, dropped, gone, entries, is_whole):
    """(the report's lines, whether the run succeeded)"""
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
    """A digest of everything that the results depend on."""
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
    # A process that was started in the background may ignore SIGINT.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.default_int_handler)
    try:
        sys.exit(main())
    except (LookupError, RuntimeError, swift_source.Unreadable) as error:
        sys.exit(f"mutants: {error}")
    except KeyboardInterrupt:
        sys.exit("mutants: interrupted; the next run goes on from here")
