"""What keeps a program in: namespaces, a filter of system calls (seccomp), a ruleset for files (Landlock), limits.

Imported by `box.py` alone, in the process that the program will run in: on the standard library alone. `isolate` gives
up what it can before that process is forked, `confine` the rest inside of it, with no way back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

NOBODY = 65534
MAX_OPEN = 64
MAX_FILE = 16 * 2**20
_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_PIDS, _NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_PRIVATE, _RECURSIVE, _NO_SUID, _NO_DEVICES = 0x40000, 0x4000, 0x2, 0x4
_SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT = 4, 38, 1
_MOUNT_SETATTR, _HERE, _WHOLE_TREE, _READ_ONLY = 442, -100, 0x8000, 0x1
_CAPABILITIES_V3 = 0x20080522
_SET_SECCOMP, _FILTER, _BAD_ADDRESS = 22, 2, 14
_LOAD, _EQUAL, _AT_LEAST, _RETURN, _ALLOW, _REFUSE = 0x20, 0x15, 0x35, 0x06, 0x7FFF0000, 0x50001
_NEW_RULESET, _ADD_RULE, _RESTRICT, _VERSION, _BENEATH = 444, 445, 446, 1, 1
_WRITE_FILE = 0x2
_WRITES = (0x1FF2, 0x3FF2, 0x7FF2)
"""By Landlock's version: writing, removing and making of each kind; since 2 also moving, since 3 also truncating."""
_OTHER_CALLS = 0x40000000
"""Numbers from here on are x86-64's second set of calls."""
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Each machine's number for the filter, and its place in the pairs below."""
_NUMBER, _MACHINE, _FIRST, _SECOND = 0, 4, 16, 24
"""Where the filter finds a call's number, its machine, and the lower half of two arguments."""
_REFUSED = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "perf_event_open": (298, 241),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    # memory that no limit counts, queues and keys, some of which outlive the program
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
"""Refused whatever their arguments: the numbers on x86-64 and on arm64."""
_ON_ITSELF = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
"""Allowed where the first argument, a process, is 0: the program itself."""
_COMMANDS = {
    "fcntl": ((72, 25), (8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others
    "ioctl": ((16, 29), (0x8901, 0x8902, 0x5412)),  # FIOSETOWN, SIOCSPGRP; TIOCSTI types at a terminal
}
"""Refused with these second arguments."""
_Step = tuple[int, int, int, int]


class Walls(NamedTuple):
    """What stands. `cut` is what a program is cut off from; `filter` and `ruleset` are what `confine` must still do."""

    cut: list[str]
    filter: bool = False
    ruleset: int = 0


def isolate(folder: str, namespaces: bool = True) -> Walls:
    """What can be given up before the program's process begins. `namespaces`: whether to make any."""
    user = ["user"] if os.geteuid() == 0 and _become_nobody(folder) else []
    if not sys.platform.startswith("linux"):
        return Walls(user)
    libc = ctypes.CDLL(None, use_errno=True)
    # without a program for the filter the kernel names another error than a bad address where it has none
    known = os.uname().machine in _MACHINES and libc.prctl(_SET_SECCOMP, _FILTER, None) != 0
    filtered = known and ctypes.get_errno() == _BAD_ADDRESS
    ruleset = max(0, libc.syscall(_NEW_RULESET, None, ctypes.c_size_t(0), _VERSION))
    libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)  # who changes its user may not write its own maps otherwise
    if namespaces and _in_namespaces(libc):
        files = ["files"] if _only_read(libc, folder) else []
        return Walls([*user, "network", "processes", *files], filtered, 0 if files else ruleset)
    libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)  # what else runs as nobody may not look into this process
    # without a ruleset a process can write the memory of every other one of its user, and then act as that one
    apart = ["network", "processes"] if filtered and (user or ruleset) else []
    return Walls([*user, *apart], filtered, ruleset)


def confine(job: dict[str, Any], folder: str, walls: Walls) -> None:
    """The last step before the program. Raises OSError where what `cut` says could not be done."""
    _limit(job)
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(0), None)  # of its own processes alone, if that may be
    libc.prctl(_DIE_WITH_PARENT, 9, 0, 0, 0)
    libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(header), ctypes.byref(none))
    if walls.ruleset:
        _only_write_in(libc, folder, _WRITES[min(walls.ruleset, len(_WRITES)) - 1])
    if walls.filter:
        _refuse_calls(libc)


def _limit(job: dict[str, Any]) -> None:
    seconds = int(job["seconds"]) + 1  # whole ones, and some are spent before the program starts
    limits = {
        resource.RLIMIT_AS: job["memory"],
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: MAX_FILE,
        resource.RLIMIT_NOFILE: MAX_OPEN,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for name, value in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(name, (value, value))


# The user, namespaces and mounts --------------------------------------------------------------------------------------


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


def _in_namespaces(libc: Any) -> bool:
    """A network with nothing in it, processes of its own, and a user who is nobody's but here."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_PIDS | _NEW_IPC | _NEW_MOUNTS) != 0:
        return False
    with contextlib.suppress(OSError):
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    return True


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


# Landlock -------------------------------------------------------------------------------------------------------------


def _only_write_in(libc: Any, folder: str, writes: int) -> None:
    """No file is written outside of the folder, and, as for all that Landlock restricts, no memory, environment or
    descriptor of a process outside is seen through /proc."""
    handled = ctypes.c_uint64(writes)
    ruleset = libc.syscall(_NEW_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    for path, allowed in ((folder, writes), (os.devnull, _WRITE_FILE)):
        place = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, place), 12)
        _done(libc.syscall(_ADD_RULE, ruleset, _BENEATH, rule, 0))
        os.close(place)
    _done(libc.syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)


# The filter of system calls -------------------------------------------------------------------------------------------


def _refuse_calls(libc: Any) -> None:
    steps = list(_filter())
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HL", len(steps), ctypes.addressof(code)))
    _done(libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0))


def _filter() -> Iterator[_Step]:
    """A program of the kernel's filter; each step is (what, steps to skip if so, if not, value)."""
    machine, place = _MACHINES[os.uname().machine]
    yield from ((_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _REFUSE))
    yield from ((_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _OTHER_CALLS), (_RETURN, 0, 0, _REFUSE))
    for numbers in _REFUSED.values():
        if (number := numbers[place]) is not None:
            yield from ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE))
    for numbers in _ON_ITSELF.values():
        yield from ((_EQUAL, 0, 4, numbers[place]), (_LOAD, 0, 0, _FIRST), (_EQUAL, 0, 1, 0))
        yield from ((_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE))
    for numbers, commands in _COMMANDS.values():
        yield from ((_EQUAL, 0, 2 + 2 * len(commands), numbers[place]), (_LOAD, 0, 0, _SECOND))
        for command in commands:
            yield from ((_EQUAL, 0, 1, command), (_RETURN, 0, 0, _REFUSE))
        yield (_RETURN, 0, 0, _ALLOW)
    yield (_RETURN, 0, 0, _ALLOW)


def _done(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
