#!/usr/bin/python3
"""Runs a program whose kernel is short of memory for io_uring.

    starving.py COUNT PROGRAM [ARGUMENT...]

The first COUNT calls of io_uring_enter on a ring are not made, and answered with EAGAIN. SIGTERM is
passed on. When this process is killed, so is the program.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import sys

from killer import (
    ENTRY, EXIT, GETREGSET, NT_PRSTATUS, NUMBERS, SETREGSET, SYSCALL_INFO, Program, ptrace)

IS_ARM = platform.machine() == "aarch64"
# Which register holds a call's result and, but on arm64, which its number.
RESULT, NUMBER = (0, None) if IS_ARM else (10, 15)
# linux/elf.h
NT_ARM_SYSTEM_CALL = 0x404


class Starving(Program):
    def __init__(self, command, left):
        self.left = left
        self.refused = set()
        super().__init__(command, 0)

    def system_call(self, thread):
        info = ctypes.create_string_buffer(88)
        ptrace(SYSCALL_INFO, thread, 88, ctypes.addressof(info))
        if info.raw[0] == ENTRY:
            number, descriptor = struct.unpack_from("Qi", info.raw, 24)
            # Without a descriptor the daemon only asks whether it may make the call.
            if NUMBERS.get(number) == "io_uring_enter" and descriptor >= 0 and self.left > 0:
                self.left -= 1
                self.refused.add(thread)
                skip(thread)
        elif info.raw[0] == EXIT and thread in self.refused:
            self.refused.discard(thread)
            set_register(thread, RESULT, -errno.EAGAIN)


def skip(thread):
    """Has the kernel make no call, by a number that no call has."""
    if not IS_ARM:
        return set_register(thread, NUMBER, -1)
    number = ctypes.c_int(-1)
    place = (ctypes.c_size_t * 2)(ctypes.addressof(number), ctypes.sizeof(number))
    ptrace(SETREGSET, thread, NT_ARM_SYSTEM_CALL, ctypes.addressof(place))


def set_register(thread, index, value):
    registers = ctypes.create_string_buffer(512)
    place = (ctypes.c_size_t * 2)(ctypes.addressof(registers), len(registers))
    ptrace(GETREGSET, thread, NT_PRSTATUS, ctypes.addressof(place))
    struct.pack_into("q", registers, index * 8, value)
    ptrace(SETREGSET, thread, NT_PRSTATUS, ctypes.addressof(place))


def main():
    count, *command = sys.argv[1:]
    program = Starving(command, int(count))
    signal.signal(signal.SIGTERM, lambda *_: program.signal(program.pid, signal.SIGTERM))
    return os.waitstatus_to_exitcode(program.run()) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
