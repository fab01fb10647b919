"""Which addresses a call may go to: only the public internet, never this machine, its networks or its containers."""

import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address

_V4_DENIED = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; also where some clouds keep their metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own helper for its machines, on a public address
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_V6_UNICAST = IPv6Network("2000::/3")
_V6_DENIED = tuple(
    IPv6Network(net)
    for net in (
        "2001::/23",  # Teredo, benchmarking, overlay identifiers
        "2001:db8::/32",
        "2002::/16",  # 6to4, which leads to a v4 address of the sender's choice
        "3ffe::/16",
        "3fff::/20",
    )
)
# v6 ranges whose last 32 bits are a v4 address that the packet really goes to.
_V4_INSIDE = tuple(IPv6Network(net) for net in ("::ffff:0:0/96", "64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
_BRIDGES = ("docker", "br-", "veth", "virbr", "cni", "podman", "lxc")
_REFRESH = 30.0


def plain(address: Address) -> Address:
    """The address that packets really go to: a v4 one out of its v6 wrapping, else itself."""
    if isinstance(address, IPv6Address) and any(address in net for net in _V4_INSIDE):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address | str) -> bool:
    """Whether the address is an ordinary one on the public internet, seen through every way to write a v4 one in v6."""
    try:
        found = plain(ip_address(address) if isinstance(address, str) else address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return False
        # ISATAP: any network, with a v4 address behind a fixed pair of words.
        if (int(found) >> 32) & 0xFDFFFFFF == 0x5EFE:
            return False
        return found.is_global and found in _V6_UNICAST and not any(found in net for net in _V6_DENIED)
    return found.is_global and not found.is_multicast and not any(found in net for net in _V4_DENIED)


def is_own(address: Address | str) -> bool:
    """Whether the address belongs to this machine: an address can be bound to only where it is ours."""
    found = ip_address(address) if isinstance(address, str) else address
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(found), 0))
        except OSError:
            return False
        return True


class Bridges:
    """The networks of containers and virtual machines on this host, which may well use public numbers."""

    def __init__(self, proc: Path = Path("/proc/net")) -> None:
        self._proc = proc
        self._read_at = 0.0
        self._networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def __contains__(self, address: Address) -> bool:
        if not self._read_at or time.monotonic() - self._read_at > _REFRESH:
            self._networks = (*self._v4(), *self._v6())
            self._read_at = time.monotonic()
        return any(address in net for net in self._networks)

    def _v4(self) -> Iterator[IPv4Network]:
        for row in self._rows("route")[1:]:
            if row[0].startswith(_BRIDGES):
                raw = bytes.fromhex(row[1])[::-1]
                yield IPv4Network((int.from_bytes(raw), int(row[7], 16).bit_count()), strict=False)

    def _v6(self) -> Iterator[IPv6Network]:
        for row in self._rows("ipv6_route"):
            if row[-1].startswith(_BRIDGES):
                yield IPv6Network((int(row[0], 16), int(row[1], 16)), strict=False)

    def _rows(self, name: str) -> list[list[str]]:
        try:
            return [line.split() for line in (self._proc / name).read_text().splitlines()]
        except OSError:
            return []
