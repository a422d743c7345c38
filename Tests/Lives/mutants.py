#!/usr/bin/python3
"""Plants faults in the manager's own source, one by one, and expects the simulation to find each.

`make sim-mutants` calls it, for a few minutes. Works on a copy of the package. Exits with 0
only when every mutant was found within its budget of lives.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIVES = 3000
AGENT = "Sources/Agent/VolumeManager"

# What is planted, where, and the one place in the text that is changed for it.
MUTANTS = [
    ("the linger is not ended by Mount", f"{AGENT}+GiveBack.swift",
     "        volume.givingBack?.cancel()\n", ""),
    ("a Mount under way does not keep the volume", "Sources/Agent/Volume.swift",
     "!record.mounts.isEmpty || mountsUnderWay > 0", "!record.mounts.isEmpty"),
    ("a failed Mount does not start the linger", f"{AGENT}+Mount.swift",
     "if volume.mountsUnderWay == 1 { giveBackWhenUnused(volume) }", ""),
    ("every Unmount unmounts", f"{AGENT}+Mount.swift",
     "        guard !volume.isUsed else { return }\n        defer", "        defer"),
    ("a failed unmount counts as done", f"{AGENT}+Mount.swift",
     "            volume.phase = .mounted(device)\n            log.error(\"unmount failed\"",
     "            volume.phase = .unmounted\n            log.error(\"unmount failed\""),
    ("Create answers before its record is saved", f"{AGENT}.swift",
     "        try await save()\n        log.info(\"created\"",
     "        saveInBackground()\n        log.info(\"created\""),
    ("counts without a mount outlive a restart", f"{AGENT}+Start.swift",
     "            volume.record.mounts = MountCounts()\n", ""),
    ("nothing is given back after a restart", f"{AGENT}+Start.swift",
     "if !volume.isUsed { giveBackWhenUnused(volume) }", ""),
    ("a held volume is detached", f"{AGENT}+GiveBack.swift",
     "guard try await ports.fileSystems.isHeld(device) else { return }",
     "guard try await ports.fileSystems.isHeld(device), false else { return }"),
    ("a failed step of giving back is not repeated", f"{AGENT}+GiveBack.swift",
     "pause = min(pause * 2, Limit.detachRetryInterval)", "pause = .seconds(1_000_000)"),
    ("the lease is not written again after the linger", f"{AGENT}+Lease.swift",
     "        guard !volume.isUsed else { return }\n        volume.isLeaseSure = false\n",
     "        guard !volume.isUsed else { return }\n"),
    ("a Mount does not wait for the lease's dropping", f"{AGENT}+Lease.swift",
     "volume.leaseDrop = task", "volume.leaseDrop = nil"),
    ("a snapshot's blank volume is formatted", "Sources/VolumeCore/Decisions.swift",
     "case .blank where description.snapshotID != nil:",
     "case .blank where description.snapshotID == \"\":"),
    ("unknown data is formatted", "Sources/VolumeCore/Decisions.swift",
     "        case .unknownData:\n",
     "        case .unknownData where !options.readOnly: self = .format\n"
     "        case .unknownData:\n"),
    ("a running owner's lease is ignored", "Sources/VolumeCore/Takeover.swift",
     "        default:\n            throw unusable",
     "        case .running: self = .detach\n        default:\n            throw unusable"),
    ("a running owner is detached by force", f"{AGENT}+Takeover.swift",
     "guard now >= force, isDown(try await state(of: owner, by: deadline)) else { return }",
     "guard now >= force else { return }"),
    ("a device name that was used is not free again", "Sources/VolumeCore/DeviceNames.swift",
     "if let name = taken.remove(Self.spelling(of: name)) { free.append(name) }",
     "taken.remove(Self.spelling(of: name))"),
    ("an ID is counted once", "Sources/VolumeCore/VolumeRecord.swift",
     "counts[id, default: 0] += 1", "counts[id] = 1"),
]


def build(package):
    return subprocess.run(
        ["swift", "build", "--product", "life-simulator"], cwd=package, text=True,
        capture_output=True, check=False)


def play(package):
    """What was broken and by which seed; None when nothing was."""
    lives = subprocess.run(
        [package / ".build/debug/life-simulator", "--runs", str(LIVES)], text=True,
        capture_output=True, check=False)
    if lives.returncode == 0:
        return None
    lines = [line for line in lives.stdout.splitlines() if ": broken: " in line]
    return lines[0] if lines else f"ended with {lives.returncode}: {lives.stderr.strip()[-200:]}"


def judge(package, path, old, new):
    """(whether it was found, in words)"""
    file = package / path
    text = file.read_text()
    if text.count(old) != 1:
        return False, f"the text to change stands {text.count(old)} times in {path}"
    file.write_text(text.replace(old, new))
    try:
        built = build(package)
        if built.returncode:
            return False, "does not compile: " + (built.stdout + built.stderr)[-800:]
        broken = play(package)
        return broken is not None, broken or f"not found in {LIVES} lives"
    finally:
        file.write_text(text)


def main():
    wanted = sys.argv[1:]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        package = pathlib.Path(folder) / "package"
        shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns(".build", ".git"))
        whole = build(package)
        broken = whole.stderr if whole.returncode else play(package)
        if broken:
            print(f"without a mutant: {broken}")
            return 1
        for name, path, old, new in MUTANTS:
            if wanted and not any(part in name for part in wanted):
                continue
            found, words = judge(package, path, old, new)
            missed += not found
            print(f"{'found' if found else 'MISSED'}: {name}: {words}", flush=True)
    print(f"{missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
