#!/usr/bin/python3
"""Runs a static executable and notes which of its functions are called.

    reached.py REPORT PROGRAM [ARGUMENT...]

Sets a breakpoint (ptrace) at the entry of each function that the symbol table tells, and takes it
away when it is first reached: from then on the function costs nothing. The file REPORT then holds
the addresses of those reached, as the symbol table tells them. Children are left alone. SIGTERM is
passed on; when this process is killed, so is the program.
"""

import ctypes
import os
import pathlib
import platform
import signal
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Tests" / "Rig"))

from killer import (  # noqa: E402
    CLONES, EXECS, EXITKILL, FORKS, GETREGSET, NT_PRSTATUS, SETOPTIONS, SETREGSET, TRACEME, VFORKS,
    follow, ptrace)

# linux/auxvec.h, and where an ELF header has the same address, unmoved.
AT_ENTRY, ENTRY = 9, 24
# linux/ptrace.h
CONT, DETACH, EVENT_EXEC = 7, 17, 4

# The breakpoint, how far behind it the program counter then is, and which register that is.
if platform.machine() == "aarch64":
    BREAKPOINT, BEHIND, COUNTER = b"\x00\x00\x20\xd4", 0, 32
else:
    BREAKPOINT, BEHIND, COUNTER = b"\xcc", 1, 16


def functions(program):
    """(address, name, whether other objects see it) of each function with code of its own."""
    table = subprocess.run(
        ["readelf", "--symbols", "--wide", program], check=True, capture_output=True, text=True)
    rows = [line.split() for line in table.stdout.splitlines()]
    return [(int(row[1], 16), row[7], row[4] != "LOCAL") for row in rows
            if len(row) == 8 and row[3] in ("FUNC", "IFUNC") and row[2] != "0" and row[6] != "UND"]


def moved_by(process, program):
    """How far from its symbol table's addresses the kernel has put a program."""
    auxiliary = pathlib.Path(f"/proc/{process}/auxv").read_bytes()
    values = dict(struct.iter_unpack("QQ", auxiliary))
    with open(program, "rb") as file:
        return values[AT_ENTRY] - struct.unpack_from("Q", file.read(64), ENTRY)[0]


class Program:
    def __init__(self, command):
        self.reached = []
        self.pid = os.fork()
        if self.pid == 0:
            ptrace(TRACEME, 0)
            os.execv(command[0], command)
        os.waitpid(self.pid, 0)
        ptrace(SETOPTIONS, self.pid, 0, FORKS | VFORKS | CLONES | EXECS | EXITKILL)
        self.memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR)
        self.moved = moved_by(self.pid, command[0])
        self.original = {}
        for address in sorted({self.moved + row[0] for row in functions(command[0])}):
            self.original[address] = os.pread(self.memory, len(BREAKPOINT), address)
        for address in self.original:
            os.pwrite(self.memory, BREAKPOINT, address)
        ptrace(CONT, self.pid)

    def run(self):
        """Until its end; the wait status."""
        return follow(self.pid, self.go_on)

    def go_on(self, thread, status):
        number, event = os.WSTOPSIG(status), status >> 16
        if event == EVENT_EXEC:
            ptrace(DETACH, thread)
            return
        at_breakpoint = number == signal.SIGTRAP and event == 0
        if at_breakpoint:
            self.take_away(thread)
        # A new thread or child begins with a SIGSTOP that nobody sent.
        own = at_breakpoint or event != 0 or number == signal.SIGSTOP
        ptrace(CONT, thread, 0, 0 if own else number)

    def take_away(self, thread):
        """Two threads can reach the same one."""
        registers = ctypes.create_string_buffer(512)
        place = (ctypes.c_size_t * 2)(ctypes.addressof(registers), len(registers))
        ptrace(GETREGSET, thread, NT_PRSTATUS, ctypes.addressof(place))
        address = struct.unpack_from("Q", registers, COUNTER * 8)[0] - BEHIND
        os.pwrite(self.memory, self.original[address], address)
        self.reached.append(address)
        struct.pack_into("Q", registers, COUNTER * 8, address)
        ptrace(SETREGSET, thread, NT_PRSTATUS, ctypes.addressof(place))


def main():
    report, *command = sys.argv[1:]
    program = Program(command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(program.pid, signal.SIGTERM))
    status = program.run()
    addresses = sorted({address - program.moved for address in program.reached})
    pathlib.Path(report).write_text("".join(f"{address:x}\n" for address in addresses))
    return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
