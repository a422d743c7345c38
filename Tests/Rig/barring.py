#!/usr/bin/python3
"""Runs a command under a seccomp filter that makes the kernel return an error for some system
calls.

Tests/Rig/barring.py EPERM COMMAND … # io_uring's three calls, as blocked by a container's profile
Tests/Rig/barring.py 4.14 COMMAND … # ENOSYS for every call that Linux 4.14 does not have

The filter applies to the command and everything that it starts. BARRED in its environment says that
it is active.
"""

import ctypes
import errno
import os
import platform
import sys

# linux/seccomp.h, linux/prctl.h, linux/bpf_common.h, linux/audit.h
SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 2, 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22
LOAD_WORD, JUMP_IF_GREATER_OR_EQUAL, JUMP_IF_GREATER, RETURN = 0x20, 0x35, 0x25, 0x06

# io_uring_setup, io_uring_enter and io_uring_register have these numbers everywhere.
IO_URING = (425, 427)
# The calls after statx, the last one of 4.14.
AFTER_4_14 = ({"x86_64": 333, "aarch64": 292}[platform.machine()], 0xFFFFFFFF)


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("if_true", ctypes.c_uint8),
                ("if_false", ctypes.c_uint8), ("operand", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]


def bar(calls, error):
    """From now on, makes calls with numbers in a range return an errno in this process."""
    first, last = calls
    instructions = (Instruction * 5)(
        Instruction(LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
        Instruction(JUMP_IF_GREATER_OR_EQUAL, 0, 2, first),
        Instruction(JUMP_IF_GREATER, 1, 0, last),
        Instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | error),
        Instruction(RETURN, 0, 0, SECCOMP_RET_ALLOW))
    program = Program(len(instructions), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                      (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)]:
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def main():
    what, *command = sys.argv[1:]
    if what == "4.14":
        bar(AFTER_4_14, errno.ENOSYS)
    else:
        bar(IO_URING, getattr(errno, what))
    os.execvpe(command[0], command, {**os.environ, "BARRED": what})


if __name__ == "__main__":
    main()
