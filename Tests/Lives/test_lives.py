"""Seeded lives of volumes in virtual time, as many as a release build plays in a minute."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIVES = 20_000
# Seeds that once broke an invariant in a release build, whatever they play since.
FAILED_ONCE = [695, 1320, 5203, 10410, 22840, 25412, 27200, 27916, 29627, 34353, 64113, 89366,
    401590, 74590, 8201]


def test_twenty_thousand_lives_leave_nothing_behind():
    folder = subprocess.run(
        ["swift", "build", "-c", "release", "--show-bin-path"], cwd=ROOT, check=True,
        capture_output=True, text=True).stdout.strip()
    lives = subprocess.run(
        [f"{folder}/life-simulator", "--runs", str(LIVES), "--also", *map(str, FAILED_ONCE)],
        capture_output=True, text=True, timeout=900, check=False)
    assert lives.returncode == 0, lives.stdout + lives.stderr
