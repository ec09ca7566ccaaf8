"""Addresses that a fetcher may connect to, and the connector that enforces them.

Only globally reachable unicast addresses are allowed unless the rules say otherwise, so that a list
file, a redirect or a robots.txt cannot make a cluster probe its own network. What is checked is the
address of the connection, after every normalization: an address written in the URL, each result of
DNS, and once more each socket before it connects.
"""

import fnmatch
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64: Final = ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = ip_network("::/96")
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
_REFUSED: Final = tuple(
    map(
        ip_network,
        (
            "100.64.0.0/10",  # shared by carriers (RFC 6598)
            "192.88.99.0/24",  # relays of 6to4, withdrawn (RFC 7526)
            "198.18.0.0/15",  # benchmarks (RFC 2544)
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
"Networks that some versions of ``ipaddress`` take for global."


def embedded_ipv4(address: IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses to which a router or the system may translate an IPv6 address."""
    last_bits = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        return [last_bits]
    if address.sixtofour:
        return [address.sixtofour]
    return list(address.teredo or ())


def is_public(address: str) -> bool:
    """Return whether an address is unicast and globally reachable, as are those that it embeds."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if embedded := embedded_ipv4(ip):
            return all(is_public(str(each)) for each in embedded)
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _REFUSED)


def literal_address(host: str) -> str | None:
    """Return the address that a host stands for without DNS, or None for a name.

    IPv4 addresses in octal, hexadecimal or with fewer than four parts, which the system's resolver
    accepts, are literals too.
    """
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    if not host[:1].isdigit() or not host.isascii():
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


@dataclass(frozen=True)
class AddressRules:
    """Addresses that requests may go to."""

    allow_private: bool = False
    "Whether addresses that are not globally reachable are allowed."
    connect_to: Mapping[str, str] = field(default_factory=dict)
    "``ADDRESS:PORT`` by host pattern, used instead of DNS (like curl's --connect-to)."

    def target(self, host: str) -> tuple[str, int] | None:
        """Return the address and port that ``connect_to`` gives for a host, or None."""
        for pattern, target in self.connect_to.items():
            if fnmatch.fnmatch(host, pattern):
                return _address_and_port(target)
        return None

    def allows(self, address: str) -> bool:
        """Return whether the rules allow a connection to an address."""
        return self.allow_private or is_public(address)

    def check_host(self, host: str) -> None:
        """Check a host as far as it can be checked without DNS.

        Raises:
            PrivateAddress: the host is an address that the rules do not allow, or this machine.
        """
        address = literal_address(host)
        if address is None and host.rstrip(".").lower().split(".")[-1] == "localhost":
            address = "127.0.0.1"  # RFC 6761: names under localhost are the loopback address
        if address is not None and not self.allows(address):
            raise PrivateAddress(f"{host} is the private address {address}")


class PrivateAddress(OSError):
    """A host is, or resolves only to, addresses that the rules do not allow."""


class Resolver(AbstractResolver):
    """DNS without private addresses, and with the replacements of ``connect_to``."""

    def __init__(self, rules: AddressRules, dns: AbstractResolver | None = None) -> None:
        """Take the rules, and a resolver in place of the system's."""
        self.rules = rules
        self.dns = dns or aiohttp.ThreadedResolver()
        self.trusted_hosts: set[tuple[str, int]] = set()
        "(host, port) of the proxies that the environment names: not subject to the rules."
        self.trusted_addresses = {_address_and_port(each) for each in rules.connect_to.values()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a host for aiohttp.

        Raises:
            PrivateAddress: every address of the host is private.
        """
        target = self.rules.target(host)
        if target is not None:
            return [
                ResolveResult(
                    hostname=host,
                    host=target[0],
                    port=target[1],
                    family=socket.AF_INET,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
            ]
        # RFC 6761: names under .invalid never exist; some networks take seconds to answer that.
        if host.rstrip(".").endswith(".invalid"):
            raise OSError(f"{host} does not exist")
        found = await self.dns.resolve(host, port, family)
        if (host, port) in self.trusted_hosts:
            self.trusted_addresses |= {(result["host"], result["port"]) for result in found}
            return found
        allowed = [result for result in found if self.rules.allows(result["host"])]
        if found and not allowed:
            raise PrivateAddress(f"{host} resolves to the private address {found[0]['host']}")
        return allowed

    def open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address of ``getaddrinfo``, about to be connected to.

        Raises:
            PrivateAddress: the rules do not allow the address.
        """
        family, kind, proto, _, (host, port, *_) = address
        if (host, port) not in self.trusted_addresses and not self.rules.allows(host):
            raise PrivateAddress(f"{host} is a private address")
        return socket.socket(family, kind, proto)

    async def close(self) -> None:
        """Close the DNS client."""
        await self.dns.close()


def _address_and_port(target: str) -> tuple[str, int]:
    address, _, port = target.rpartition(":")
    return address, int(port)
