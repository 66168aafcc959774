"""Runs one program that nobody has read, in a process that can do little: started as a script by
`llmkit.sandbox.program`, never imported by it, on the standard library alone.

    python -I -S box.py FOLDER < job       job: one line of JSON, then what the program reads as its input

The first line that it writes is JSON: `cut`, what it could cut the program off from, and `pid`, the program's process.
After that comes what the program prints (a job without `steps`), or one line `token place value` per step that worked.
A step is evaluated here and compared elsewhere: the values that are expected never enter this process.

What is cut off, each where the system allows it:
    user       from a root user: the program runs as nobody
    network    a network of its own with nothing in it, and no sockets
    processes  it starts, sees, signals and traces no other process
    files      all is read-only but FOLDER, which is memory and goes with it
Namespaces do that on Linux, for users that may make them; a filter of system calls does `network` and `processes` on
Linux everywhere (x86-64 and arm64). On any system: address space, CPU seconds, size and number of files, and for all
users but root the number of processes are limited, and the environment is empty.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

NOBODY = 65534
_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_PIDS, _NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_PRIVATE, _RECURSIVE, _NO_SUID, _NO_DEVICES = 0x40000, 0x4000, 0x2, 0x4
_SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT = 4, 38, 1
_MOUNT_SETATTR, _HERE, _WHOLE_TREE, _READ_ONLY = 442, -100, 0x8000, 0x1
_CAPABILITIES_V3 = 0x20080522
_SET_SECCOMP, _FILTER, _BAD_ADDRESS = 22, 2, 14
_LOAD, _EQUAL, _AT_LEAST, _RETURN, _ALLOW, _REFUSE = 0x20, 0x15, 0x35, 0x06, 0x7FFF0000, 0x50001
# Of each machine: its number for the filter, then the calls that are refused, in the order of linux/unistd.h:
# clone, clone3, socket, ptrace, process_vm_readv, process_vm_writev, unshare, setns, mount, kill, tkill, tgkill,
# pidfd_open, pidfd_send_signal, io_uring_setup, bpf, and on x86-64 fork and vfork.
_REFUSED = {
    "x86_64": (0xC000003E, (56, 435, 41, 101, 310, 311, 272, 308, 165, 62, 200, 234, 434, 424, 425, 321, 57, 58)),
    "aarch64": (0xC00000B7, (220, 435, 198, 117, 270, 271, 97, 268, 40, 129, 130, 131, 434, 424, 425, 280)),
}
_OTHER_CALLS = 0x40000000
"""Numbers from here on are x86-64's second set of calls."""
GRACE_SECONDS = 1.0
MAX_OPEN = 64
MAX_FILE = 16 * 2**20


def main() -> None:
    folder = sys.argv[1]
    line = _first_line()
    os.lseek(0, len(line), os.SEEK_SET)
    job = json.loads(line)
    cut = _isolate(folder)
    gate, opener = os.pipe()
    program = os.fork()
    if program == 0:
        os.close(opener)
        os.read(gate, 1)
        os.close(gate)
        _run(job, folder)
    _end_in(job["clock"] + GRACE_SECONDS, program)
    os.write(1, json.dumps({"cut": cut, "pid": program}).encode() + b"\n")
    os.write(opener, b"\n")
    status = os.waitpid(program, 0)[1]
    os._exit(os.waitstatus_to_exitcode(status) % 256)


def _end_in(seconds: float, program: int) -> None:
    """Ends the program if nobody else does: who started it may be gone."""

    def end(*_: Any) -> None:
        os.kill(program, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _first_line() -> bytes:
    data = b""
    while chunk := os.read(0, 1 << 16):
        data += chunk
        if b"\n" in chunk:
            break
    return data[: data.index(b"\n") + 1]


# What the program is cut off from -------------------------------------------------------------------------------------


def _isolate(folder: str) -> list[str]:
    cut = []
    if os.geteuid() == 0 and _become_nobody(folder):
        cut.append("user")
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    with contextlib.suppress(AttributeError, OSError):  # no Linux
        libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)  # who changes its user may not write its own maps otherwise
        if libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_PIDS | _NEW_IPC | _NEW_MOUNTS) == 0:
            cut += ["network", "processes"]
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{user} {user} 1")
            _write("/proc/self/gid_map", f"{group} {group} 1")
            if _only_read(libc, folder):
                cut.append("files")
        # without a filter the kernel would name another error than a bad address
        if os.uname().machine in _REFUSED and libc.prctl(_SET_SECCOMP, _FILTER, None) != 0:
            known = ctypes.get_errno() == _BAD_ADDRESS
            cut += [name for name in ("network", "processes") if known and name not in cut]
    return cut


def _become_nobody(folder: str) -> bool:
    """False where nobody could not read Python's own modules, or this process may not change its user."""
    trial = os.fork()
    if trial == 0:
        with contextlib.suppress(OSError):
            _set_user()
            os.close(os.open(os.__file__, os.O_RDONLY))
            os._exit(0)
        os._exit(1)
    if os.waitpid(trial, 0)[1] != 0:
        return False
    os.chown(folder, NOBODY, NOBODY)
    _set_user()
    return True


def _set_user() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _only_read(libc: Any, folder: str) -> bool:
    """All mounts read-only, but for a folder in memory. Private first: nothing of it may reach the system's mounts."""
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None) != 0:
        return False
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if libc.syscall(_MOUNT_SETATTR, _HERE, b"/", _WHOLE_TREE, ctypes.byref(attributes), size) != 0:
        return False
    limit = b"size=%d,nr_inodes=256,mode=0700" % MAX_FILE
    if libc.mount(b"llmkit", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(_NO_SUID | _NO_DEVICES), limit) == 0:
        os.chdir(folder)
    return True


def _limit(job: dict[str, Any]) -> None:
    """The last step before the program: limits, and no way back to what was given up."""
    seconds = int(job["seconds"]) + 1  # whole ones, and some are spent before the program starts
    limits = {
        resource.RLIMIT_AS: (job["memory"], job["memory"]),
        resource.RLIMIT_CPU: (seconds, seconds),
        resource.RLIMIT_FSIZE: (MAX_FILE, MAX_FILE),
        resource.RLIMIT_NOFILE: (MAX_OPEN, MAX_OPEN),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NPROC: (0, 0),
    }
    for name, values in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(name, values)
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(0), None)  # of its own processes alone, if that may be
        libc.prctl(_DIE_WITH_PARENT, 9, 0, 0, 0)
        libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
        libc.capset(ctypes.byref(header), ctypes.byref(none))
        _refuse_calls(libc)


def _refuse_calls(libc: Any) -> None:
    """A program for the kernel's filter (seccomp): one comparison per call that is refused."""
    machine, refused = _REFUSED.get(os.uname().machine, (0, ()))
    if not refused:
        return
    last = len(refused) + 5  # the place of the refusal; the one before it allows
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 0, last - 2, machine), (_LOAD, 0, 0, 0), (_AT_LEAST, last - 4, 0, _OTHER_CALLS)]
    steps += [(_EQUAL, last - 5 - place, 0, number) for place, number in enumerate(refused)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HL", len(steps), ctypes.addressof(code)))
    libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0)


# The program ----------------------------------------------------------------------------------------------------------


def _run(job: dict[str, Any], folder: str) -> None:
    report, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 2)
    if job.get("steps") is not None:
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
    else:
        os.close(report)
    with contextlib.suppress(OSError):
        os.chdir(folder)
    _limit(job)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # what `site` would have given
    code = 1
    try:
        code = _program(job["code"]) if job.get("steps") is None else _steps(job, report)
    finally:
        os._exit(code)


def _program(source: str) -> int:
    """Runs it as a script; the status that it would leave with."""
    code = 1
    try:
        exec(compile(source, "<answer>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        code = 1
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    return code % 256


def _steps(job: dict[str, Any], report: int) -> int:
    """Runs the code, then the steps: `[kind, source]`, kind `run` or `setup` (a statement), `value` or `truth`."""
    token, steps, write = job.pop("token"), job.pop("steps"), os.write
    names: dict[str, Any] = {"__name__": "answer", "__builtins__": builtins}
    exec(compile(job["code"], "<answer>", "exec"), names)
    for place, (kind, source) in enumerate(steps):
        try:
            if kind in ("run", "setup"):
                exec(compile(source, "<test>", "exec"), names)
                value = "True"
            else:
                found = eval(compile(source, "<test>", "eval"), names)
                value = ascii(_plain(bool(found) if kind == "truth" else found))
        except BaseException:
            continue
        if kind != "setup":
            write(report, f"{token} {place} {value}\n".encode())
    return 0


def _plain(value: Any) -> Any:
    """The value in Python's own types, whatever a class of the program says of itself. Raises TypeError for others."""
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    for kind, copy in _COPIES:
        if isinstance(value, kind):
            return copy(value)
    raise TypeError("no plain value")


_COPIES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, lambda value: int.__add__(value, 0)),
    (float, lambda value: float.__add__(value, 0.0)),
    (str, lambda value: str.__str__(value)),
    (list, lambda value: [_plain(each) for each in list.__iter__(value)]),
    (tuple, lambda value: tuple([_plain(each) for each in tuple.__iter__(value)])),
    (set, lambda value: {_plain(each) for each in set.__iter__(value)}),
    (frozenset, lambda value: {_plain(each) for each in frozenset.__iter__(value)}),
    (dict, lambda value: {_plain(key): _plain(each) for key, each in dict.items(value)}),
)


if __name__ == "__main__":
    main()
