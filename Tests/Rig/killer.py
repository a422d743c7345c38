#!/usr/bin/python3
"""Runs a program and kills it at a chosen step, without the program's cooperation.

    killer.py REPORT STEP PROGRAM [ARGUMENT...]

Traces the program, its threads and its children (ptrace), and counts its steps: the system calls
by which it changes something outside itself, each just before it is made; for io_uring_enter also
just after what it submits is on its way, before any of it is answered. At step number STEP (from
1; 0 is never) all of it gets SIGKILL, children too, as when a plugin's container ends. The file
REPORT then holds {"steps": [label, ...], "killed": bool}.

SIGTERM is passed on. When this process is killed, so is the program.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import platform
import signal
import struct
import sys

# linux/ptrace.h
TRACEME, CONT_TO_SYSCALL, SETOPTIONS, GETREGSET, SETREGSET, SYSCALL_INFO = (
    0, 24, 0x4200, 0x4204, 0x4205, 0x420E)
SYSGOOD, FORKS, VFORKS, CLONES, EXECS, EXITKILL = 1, 2, 4, 8, 16, 1 << 20
NT_PRSTATUS = 1
WAIT_FOR_THREADS = 0x40000000
ENTRY, EXIT = 1, 2

# System calls' numbers, and which register holds io_uring_enter's min_complete.
if platform.machine() == "aarch64":
    NUMBERS = {
        426: "io_uring_enter", 40: "mount", 39: "umount2", 34: "mkdir", 35: "unlink",
        38: "rename", 276: "rename", 56: "open", 82: "fsync", 83: "fdatasync", 64: "write",
        68: "pwrite64", 29: "ioctl", 221: "execve", 46: "ftruncate"}
    MIN_COMPLETE = 2
else:
    NUMBERS = {
        426: "io_uring_enter", 165: "mount", 166: "umount2", 83: "mkdir", 258: "mkdir",
        84: "rmdir", 87: "unlink", 263: "unlink", 82: "rename", 264: "rename", 316: "rename",
        257: "open", 74: "fsync", 75: "fdatasync", 1: "write", 18: "pwrite64",
        16: "ioctl", 59: "execve", 77: "ftruncate"}
    MIN_COMPLETE = 12
# Where the path is that a call is about, as a number of its argument.
PATHS = {"mkdir": 0, "rmdir": 0, "unlink": 0, "rename": 0, "umount2": 0, "mount": 1, "execve": 0}
AT_CALLS = {34, 35, 38, 276, 56} if platform.machine() == "aarch64" else {258, 263, 264, 316, 257}
BLOCK_IOCTLS = {0x1277: "discard", 0x127F: "zero-out"}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def short(path):
    return "/".join(path.split("/")[-2:])


def ptrace(request, thread, address=0, data=0):
    if libc.ptrace(request, thread, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")


def follow(program, stopped, ended=lambda thread: None):
    """Waits for the threads that this process traces, until there are none; the program's wait
    status.

    `stopped` is called with each that has stopped and its status, `ended` with each that has ended.
    """
    status = 0
    while True:
        try:
            thread, news = os.waitpid(-1, WAIT_FOR_THREADS)
        except ChildProcessError:
            return status
        if os.WIFSTOPPED(news):
            # A thread that was killed in the meantime can no longer be inspected.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                stopped(thread, news)
        else:
            ended(thread)
            if thread == program:
                status = news


class Program:
    def __init__(self, command, step):
        self.step = step
        self.steps = []
        self.killed = False
        self.submitting = set()
        self.started = set()
        self.pid = os.fork()
        if self.pid == 0:
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execv(command[0], command)
        os.waitpid(self.pid, 0)
        ptrace(SETOPTIONS, self.pid, 0, SYSGOOD | FORKS | VFORKS | CLONES | EXECS | EXITKILL)
        self.started.add(self.pid)
        ptrace(CONT_TO_SYSCALL, self.pid)

    def run(self):
        """Until its end; the wait status."""
        return follow(self.pid, self.go_on, self.started.discard)

    def go_on(self, thread, status):
        passed_on = 0
        number = os.WSTOPSIG(status)
        if number == signal.SIGTRAP | 0x80:
            self.system_call(thread)
        elif number == signal.SIGSTOP and thread not in self.started:
            self.started.add(thread)
        elif number != signal.SIGTRAP:
            passed_on = number
        ptrace(CONT_TO_SYSCALL, thread, 0, passed_on)

    def system_call(self, thread):
        info = ctypes.create_string_buffer(88)
        ptrace(SYSCALL_INFO, thread, 88, ctypes.addressof(info))
        if info.raw[0] == ENTRY:
            number, *arguments = struct.unpack_from("7Q", info.raw, 24)
            label = self.label(thread, number, arguments)
            if label is None:
                return
            self.count(f"{self.name(thread)}: {label}")
            if label == "submit":
                self.submitting.add(thread)
                if len(self.steps) + 1 == self.step:
                    self.do_not_wait(thread)
        elif info.raw[0] == EXIT and thread in self.submitting:
            self.submitting.discard(thread)
            self.count(f"{self.name(thread)}: submitted")

    def label(self, thread, number, arguments):
        """What a call is about; None if it is not a step."""
        name = NUMBERS.get(number)
        if name == "io_uring_enter":
            return "submit" if arguments[1] > 0 else None
        if name == "open":
            created = arguments[2] & (os.O_CREAT | os.O_EXCL)
            return f"open {self.path(thread, arguments[1])}" if created else None
        if name == "ioctl":
            return BLOCK_IOCTLS.get(arguments[1])
        if name in ("write", "fsync", "ftruncate"):
            file = os.readlink(f"/proc/{thread}/fd/{arguments[0]}")
            # Not the log, a pipe, or a call that wakes or names another thread.
            is_step = arguments[0] > 2 and file[0] == "/" and not file.startswith("/proc/")
            return f"{name} {short(file)}" if is_step else None
        if name in PATHS:
            position = PATHS[name] + (number in AT_CALLS)
            return f"{name} {self.path(thread, arguments[position])}"
        return name

    def name(self, thread):
        status = pathlib.Path(f"/proc/{thread}/status").read_text()
        process = int(status.split("\nTgid:\t", 1)[1].split("\n", 1)[0])
        return "daemon" if process == self.pid else status.split("\n", 1)[0].split("\t")[1]

    @staticmethod
    def path(thread, address):
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            text = memory.read(min(4096, 4096 - address % 4096))
        return short(text.split(b"\0")[0].decode(errors="replace"))

    def do_not_wait(self, thread):
        """Makes io_uring_enter submit and return at once."""
        registers = ctypes.create_string_buffer(512)
        place = (ctypes.c_size_t * 2)(ctypes.addressof(registers), len(registers))
        ptrace(GETREGSET, thread, NT_PRSTATUS, ctypes.addressof(place))
        struct.pack_into("Q", registers, MIN_COMPLETE * 8, 0)
        ptrace(SETREGSET, thread, NT_PRSTATUS, ctypes.addressof(place))

    def count(self, label):
        self.steps.append(label)
        if len(self.steps) == self.step:
            self.killed = True
            for thread in self.started:
                self.signal(thread, signal.SIGKILL)

    @staticmethod
    def signal(process, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def main():
    report, step, *command = sys.argv[1:]
    program = Program(command, int(step))
    signal.signal(signal.SIGTERM, lambda *_: program.signal(program.pid, signal.SIGTERM))
    status = program.run()
    pathlib.Path(report).write_text(json.dumps({"steps": program.steps, "killed": program.killed}))
    return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
