"""The system-call filter of a worker, as a program that `inside.py` hands to the kernel.

Docker's default profile is a first filter, but the one of older engines lets io_uring and virtual-machine sockets
through, and bubblewrap brings none at all. This one refuses what no script needs and kernels were broken into by,
what would outlive a job unseen (System V memory and message queues), what would run a file that no place for files lets
run, and what changes the limits and the turn of another process: the worker's own first one above all.
"""

import base64
import struct
from collections.abc import Iterable, Mapping
from typing import Final

EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT, SECOND_ARGUMENT_AT = 0, 4, 16, 24
# unix, inet, inet6, netlink: with no network they are harmless, and libraries expect to be able to ask.
FAMILIES: Final = (1, 2, 10, 16)
# New mount, cgroup, uts, ipc, user, pid and net namespaces.
NAMESPACES: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
X32_BIT: Final = 0x40000000

# The calls that have the same number everywhere.
_COMMON: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447,
}  # fmt: skip
_X86_64: Final = _COMMON | {
    "ptrace": 101, "syslog": 103, "modify_ldt": 154, "vhangup": 153, "pivot_root": 155, "adjtimex": 159, "chroot": 161,
    "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
    "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176,
    "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "mq_open": 240, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272, "move_pages": 279,
    "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "shmget": 29, "semget": 64,
    "msgget": 68, "memfd_create": 319, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setattr": 314,
    "ioprio_set": 251,
}  # fmt: skip
_AARCH64: Final = _COMMON | {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "vhangup": 58, "quotactl": 60,
    "acct": 89, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112,
    "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162, "settimeofday": 170,
    "adjtimex": 171, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "add_key": 217, "request_key": 218,
    "keyctl": 219, "swapon": 224, "swapoff": 225, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241,
    "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280,
    "userfaultfd": 282, "kexec_file_load": 294, "memfd_create": 279, "sched_setparam": 118, "sched_setscheduler": 119,
    "sched_setattr": 274, "ioprio_set": 30,
}  # fmt: skip


def programs() -> dict[str, str]:
    """The filter for each kind of machine we know (as `uname -m` names it), in base64."""
    made = {
        "x86_64": _program(
            0xC000003E, _X86_64, clone=56, clone3=435, sockets=(41, 53), own_only=(302, 203), turn=141, x32=True
        ),
        "aarch64": _program(
            0xC00000B7, _AARCH64, clone=220, clone3=435, sockets=(198, 199), own_only=(261, 122), turn=140, x32=False
        ),
    }
    return {machine: base64.b64encode(program).decode() for machine, program in made.items()}


def _program(
    architecture: int,
    refused: Mapping[str, int],
    *,
    clone: int,
    clone3: int,
    sockets: Iterable[int],
    own_only: Iterable[int],
    turn: int,
    x32: bool,
) -> bytes:
    code = [
        _step(LOAD, ARCHITECTURE_AT),
        _step(EQUAL, architecture, 1, 0),
        _step(RETURN, KILL),
        _step(LOAD, NUMBER_AT),
    ]
    if x32:
        code += [_step(AT_LEAST, X32_BIT, 0, 1), _step(RETURN, REFUSE | ENOSYS)]
    for number in sorted(refused.values()):
        code += [_step(EQUAL, number, 0, 1), _step(RETURN, REFUSE | EPERM)]
    # Its flags lie in memory, where a filter cannot look; without it the C library uses `clone`.
    code += [_step(EQUAL, clone3, 0, 1), _step(RETURN, REFUSE | ENOSYS)]
    code += [
        _step(EQUAL, clone, 0, 4),
        _step(LOAD, FIRST_ARGUMENT_AT),
        _step(ANY_BIT, NAMESPACES, 0, 1),
        _step(RETURN, REFUSE | EPERM),
        _step(RETURN, ALLOW),
    ]
    for number in sockets:
        families = [_step(EQUAL, family, len(FAMILIES) - place, 0) for place, family in enumerate(FAMILIES)]
        body = [_step(LOAD, FIRST_ARGUMENT_AT), *families, _step(RETURN, REFUSE | EAFNOSUPPORT), _step(RETURN, ALLOW)]
        code += [_step(EQUAL, number, 0, len(body)), *body]
    # prlimit and sched_setaffinity: of the calling process, which is 0, and of no other.
    for number in own_only:
        body = [
            _step(LOAD, FIRST_ARGUMENT_AT),
            _step(EQUAL, 0, 0, 1),
            _step(RETURN, ALLOW),
            _step(RETURN, REFUSE | EPERM),
        ]
        code += [_step(EQUAL, number, 0, len(body)), *body]
    # setpriority: likewise, and of one process: "all of this user" would be everybody.
    body = [
        _step(LOAD, FIRST_ARGUMENT_AT),
        _step(EQUAL, 0, 0, 3),
        _step(LOAD, SECOND_ARGUMENT_AT),
        _step(EQUAL, 0, 0, 1),
        _step(RETURN, ALLOW),
        _step(RETURN, REFUSE | EPERM),
    ]
    code += [_step(EQUAL, turn, 0, len(body)), *body]
    code.append(_step(RETURN, ALLOW))
    return b"".join(code)


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", operation, if_true, if_false, value)
