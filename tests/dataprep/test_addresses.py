"""No request reaches a private address: not from a row, a redirect or a robots.txt.

Only the loopback interface is used. Addresses elsewhere are given to the rules alone, and to a
resolver whose DNS is a table.
"""

import asyncio
import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from dataprep.addresses import (
    AddressRules,
    PrivateAddress,
    Resolver,
    is_public,
    literal_address,
)
from tests.dataprep.raw_server import RawServer, fetch, http, reason, redirect

LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.0.0.1.",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127。0.0｡1",
    "%31%32%37.0.0.1",
    "0",
    "0.0.0.0",
    "127.255.255.254",
    "localhost",
    "LOCALHOST.",
    "x.localhost",
    "ⓛocalhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "user:password@127.0.0.1",
    "a.test@127.0.0.1",
]
"Spellings of this machine."
PRIVATE = [
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254"),
    *("100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3", "127.8.8.8", "192.0.0.1"),
    *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
    *("ff0e::1", "100::1", "2001:db8::1", "3fff::1", "5f00::1", "64:ff9b:1::1"),
    *("::ffff:10.0.0.1", "::ffff:0:7f00:1", "::10.0.0.1", "64:ff9b::10.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "2002:7f00:1::", "2002:a00:1::1"),
    *("2002:c0a8:101::", "2001:0:7f00:1::1", "2001:0:808:808:0:0:80ff:fffe"),
]
PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "223.255.255.254"),
    *("2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address):
    assert not is_public(address) and AddressRules(allow_private=True).allows(address)
    with pytest.raises(PrivateAddress):
        AddressRules().check_host(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    assert is_public(address)
    AddressRules().check_host(address)


def test_every_network_of_the_standard_library_s_table_is_refused():
    for constants in (ipaddress._IPv4Constants, ipaddress._IPv6Constants):
        exceptions = getattr(constants, "_private_networks_exceptions", [])
        for network in constants._private_networks:
            address = network[network.num_addresses // 2]
            embeds = address.version == 6 and address.ipv4_mapped
            if not embeds and not any(address in each for each in exceptions):
                assert not is_public(str(address)), network


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "017700000001"]
)
def test_short_octal_and_hexadecimal_addresses_are_read_as_the_system_reads_them(host):
    found = socket.getaddrinfo(host.rstrip("."), 80, socket.AF_INET, socket.SOCK_STREAM)
    assert literal_address(host) == found[0][4][0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["a.test", "1.example.test", "x", "12monkeys.test", "feed"])
def test_names_are_not_taken_for_addresses(host):
    assert literal_address(host) is None


@pytest.mark.parametrize("spelling", LOOPBACK)
def test_no_spelling_of_this_machine_is_reached(spelling):
    url = f"http://{spelling}:{{private}}/secret.jpg"
    private = RawServer()
    for obey in (False, True):
        assert reason(fetch([url], RawServer(), private, obey_robots_txt=obey)[0]) == (
            "private_address"
        )
    assert private.heads == []


@pytest.mark.parametrize("spelling", LOOPBACK)
@pytest.mark.parametrize("path", ["/first.jpg", "/robots.txt"])
def test_no_redirect_to_this_machine_is_followed(spelling, path):
    private = RawServer()

    async def send(writer):
        writer.write(redirect(f"http://{spelling}:{private.port}/robots.txt"))

    public = RawServer({path: send, "/robots.txt": send if path == "/robots.txt" else http(b"")})
    outcomes = fetch(["http://a.test/first.jpg"], public, private, obey_robots_txt=True)
    assert reason(outcomes[0]) == "private_address"
    assert private.heads == [] and public.targets()[-1] == path


class Table(AbstractResolver):
    """DNS from a table."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self.table = table

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=6, flags=0)
            for each in self.table[host]
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", *PRIVATE[:5], "64:ff9b::7f00:1"]
)
def test_a_name_that_resolves_to_a_private_address_is_not_reached(address):
    private = RawServer()
    outcomes = fetch(
        ["http://intern.example:{private}/x.jpg"],
        RawServer(),
        private,
        dns=lambda rules: Resolver(rules, Table({"intern.example": [address]})),
    )
    assert reason(outcomes[0]) == "private_address" and private.heads == []


def test_private_addresses_among_the_results_of_dns_are_left_out():
    dns = Table({"a.example": ["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"]})
    found = asyncio.run(Resolver(AddressRules(), dns).resolve("a.example", 80))
    assert [result["host"] for result in found] == ["8.8.8.8", "2606:4700::1111"]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:10.0.0.1"])
def test_no_socket_is_opened_for_a_private_address(address):
    async def open_socket() -> None:
        resolver = Resolver(AddressRules(connect_to={"*.test": "127.0.0.1:8080"}), Table({}))
        with pytest.raises(PrivateAddress):
            resolver.open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)))
        trusted = ("127.0.0.1", 8080)
        resolver.open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", trusted)).close()

    asyncio.run(open_socket())
