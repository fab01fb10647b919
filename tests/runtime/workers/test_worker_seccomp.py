"""The filter of system calls, run by a small interpreter, for machines that this one is not as well."""

import base64
import struct

import pytest

from runtime.workers.seccomp import programs

ALLOW, EPERM, ENOSYS, NO_FAMILY, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x00050061, 0x80000000
MACHINES = {
    "x86_64": {"arch": 0xC000003E, "read": 0, "socket": 41, "clone": 56, "clone3": 435, "mount": 165, "ptrace": 101},
    "aarch64": {"arch": 0xC00000B7, "read": 63, "socket": 198, "clone": 220, "clone3": 435, "mount": 40, "ptrace": 117},
}


def verdict(machine: str, number: int, argument: int = 0, arch: int | None = None) -> int:
    """What the kernel would do."""
    code = base64.b64decode(programs()[machine])
    data = struct.pack("<IIQ6Q", number, arch or MACHINES[machine]["arch"], 0, argument, 0, 0, 0, 0, 0)
    place, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = struct.unpack_from("<HBBI", code, place * 8)
        place += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x06:
            return value
        else:
            true = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            place += if_true if true else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_what_scripts_need_passes_and_what_breaks_kernels_does_not(machine):
    number = MACHINES[machine]
    assert verdict(machine, number["read"]) == ALLOW
    assert verdict(machine, number["mount"]) == EPERM
    assert verdict(machine, number["ptrace"]) == EPERM
    assert verdict(machine, 425) == EPERM  # io_uring_setup
    assert verdict(machine, number["clone3"]) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_processes_may_be_made_but_not_namespaces(machine):
    clone = MACHINES[machine]["clone"]
    assert verdict(machine, clone, 0x01200011) == ALLOW
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, clone, 0x11 | flag) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_only_harmless_families_of_sockets(machine):
    allowed = {family for family in range(64) if verdict(machine, MACHINES[machine]["socket"], family) == ALLOW}
    assert allowed == {1, 2, 10, 16}
    assert verdict(machine, MACHINES[machine]["socket"], 40) == NO_FAMILY


def test_other_ways_into_the_kernel_are_closed():
    assert verdict("x86_64", 0, arch=0x40000003) == KILL  # 32-bit calls
    assert verdict("x86_64", 0x40000000 | 425) == ENOSYS  # the x32 numbers
