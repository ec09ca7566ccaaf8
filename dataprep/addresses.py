"""Addresses that a fetcher may connect to, and the resolver that enforces them.

Private and link-local addresses are refused unless the rules allow them, so that a list file
cannot make a cluster probe its own network.
"""

import fnmatch
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult


@dataclass(frozen=True)
class AddressRules:
    """Addresses that requests may go to."""

    allow_private: bool = False
    "Whether private and link-local addresses are allowed."
    connect_to: Mapping[str, str] = field(default_factory=dict)
    "``ADDRESS:PORT`` by host pattern, used instead of DNS (like curl's --connect-to)."

    def target(self, host: str) -> tuple[str, int] | None:
        """Return the address and port that ``connect_to`` gives for a host, or None."""
        for pattern, target in self.connect_to.items():
            if fnmatch.fnmatch(host, pattern):
                address, _, port = target.rpartition(":")
                return address, int(port)
        return None

    def allows(self, address: str) -> bool:
        """Return whether the rules allow a connection to an address."""
        return self.allow_private or ipaddress.ip_address(address).is_global


class PrivateAddress(Exception):
    """A host resolves only to addresses that the rules do not allow."""


def is_literal(host: str) -> bool:
    """Return whether a host is written as an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Resolver(AbstractResolver):
    """DNS without private addresses, and with the replacements of ``connect_to``."""

    def __init__(self, rules: AddressRules) -> None:
        self.rules = rules
        self.dns = aiohttp.ThreadedResolver()

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
        if host.endswith(".invalid"):
            raise OSError(f"{host} does not exist")
        found = await self.dns.resolve(host, port, family)
        allowed = [result for result in found if self.rules.allows(result["host"])]
        if found and not allowed:
            raise PrivateAddress(f"{host} resolves to the private address {found[0]['host']}")
        return allowed

    async def close(self) -> None:
        """Close the DNS client."""
        await self.dns.close()
