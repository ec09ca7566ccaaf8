"""Which addresses a fetcher may talk to, and where a host name leads.

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
    """Where requests may go."""

    allow_private: bool = False
    connect_to: Mapping[str, str] = field(default_factory=dict)
    "``ADDRESS:PORT`` by host pattern, in place of what DNS says (as curl's --connect-to)."

    def target(self, host: str) -> tuple[str, int] | None:
        """Return the address that stands in for a host, if one does."""
        for pattern, target in self.connect_to.items():
            if fnmatch.fnmatch(host, pattern):
                address, _, port = target.rpartition(":")
                return address, int(port)
        return None

    def allows(self, address: str) -> bool:
        """Say whether an address may be connected to."""
        return self.allow_private or ipaddress.ip_address(address).is_global


class PrivateAddress(Exception):
    """A host leads to an address that the rules do not allow."""


def is_literal(host: str) -> bool:
    """Say whether a host is an address itself."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Resolver(AbstractResolver):
    """DNS, less private addresses, with the replacements of ``connect_to``."""

    def __init__(self, rules: AddressRules) -> None:
        self.rules = rules
        self.dns = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See aiohttp.

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
        # RFC 6761: names under .invalid never exist; some networks are slow to say so.
        if host.endswith(".invalid"):
            raise OSError(f"{host} does not exist")
        found = await self.dns.resolve(host, port, family)
        allowed = [result for result in found if self.rules.allows(result["host"])]
        if found and not allowed:
            raise PrivateAddress(f"{host} is {found[0]['host']}")
        return allowed

    async def close(self) -> None:
        """See aiohttp."""
        await self.dns.close()
