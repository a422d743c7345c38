"""Runs 20,000 simulated lives with a release build."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIVES = 20_000
# Seeds that once broke an invariant in a release build. A seed may produce a different life by now.
FAILED_ONCE = [
    695, 1320, 5203, 10410, 22840, 25412, 27200, 27916, 29627, 34353, 64113, 89366, 401590, 74590,
    8201, 1414531477, 918339953, 3141823643, 2718569371, 3141725387, 1414476807, 1414663404, 246,
    360, 364, 386, 426, 560, 754, 812, 901, 1079, 1100, 1101, 1180, 1623, 1689, 1988, 2022, 2402,
    2480, 2659, 3164, 3794, 4259, 5426, 7730, 23794, 29785, 30491, 37756, 40364, 60280, 65548,
    69276, 73489, 77701, 79654, 88858, 91981, 97168, 112817, 128569, 129369, 159707, 203365,
    204836, 208672, 254490, 5018127, 5110100, 5154010, 918061278, 918071990, 918101201, 918160506,
    3141053169, 3141091330, 3141151919, 3141157654, 16504, 56922, 72486, 94299, 99437, 918021078,
    27407, 5032530, 918011292, 811470, 704195, 918094633, 10444, 88610, 918097744, 5072963,
    5074931, 127357, 918143725, 5151881, 275099,
    918286522, 918395226, 918120523, 3141301609, 5361265, 918105167,
    319091, 5498326, 425319]


def test_twenty_thousand_lives_leave_nothing_behind():
    folder = subprocess.run(
        ["swift", "build", "-c", "release", "--show-bin-path"], cwd=ROOT, check=True,
        capture_output=True, text=True).stdout.strip()
    lives = subprocess.run(
        [f"{folder}/life-simulator", "--runs", str(LIVES), "--also", *map(str, FAILED_ONCE)],
        capture_output=True, text=True, timeout=900, check=False)
    assert lives.returncode == 0, lives.stdout + lives.stderr
