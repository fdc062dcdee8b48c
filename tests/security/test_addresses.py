from __future__ import annotations

import pytest

from pairing_server.security.addresses import client_address, limit_key, parse_networks

PROXIES = parse_networks(["10.0.0.0/8", "192.0.2.1", "2001:db8:ffff::/48"])


@pytest.mark.parametrize("peer", ["203.0.113.9", "2001:db8::9", "11.0.0.1"])
def test_an_untrusted_peer_cannot_choose_its_address(peer: str) -> None:
    assert client_address(peer, ["198.51.100.1", "10.0.0.1"], PROXIES) == peer


def test_without_trusted_proxies_forwarding_headers_are_ignored() -> None:
    assert client_address("127.0.0.1", ["198.51.100.1"], ()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], "10.0.0.1"),
        (["198.51.100.1"], "198.51.100.1"),
        # What the client forged stands left of what the proxy wrote.
        (["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 10.0.0.2", "192.0.2.1"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["198.51.100.1:4711"], "198.51.100.1"),
        (["\t198.51.100.1 "], "198.51.100.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:DB8:0::1]"], "2001:db8::1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["[fe80::1%25eth0]:80"], "fe80::1"),
        (["::ffff:198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 2001:db8:ffff::5"], "198.51.100.1"),
        (["198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
    ],
)
def test_the_right_most_hop_that_is_not_a_trusted_proxy_is_the_client(
    headers: list[str], client: str
) -> None:
    assert client_address("10.0.0.1", headers, PROXIES) == client


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown",
        "",
        "1.2.3",
        "1.2.3.4.5",
        "0127.0.0.1",
        "1.2.3.4%x",
        "[::1",
        "::1]:80",
        "1.2.3.4:http",
        "x" * 5000,
        "١.٢.٣.٤",
        "127.0.0.1\x00",
    ],
)
def test_hops_left_of_one_that_is_not_an_address_are_ignored(garbage: str) -> None:
    assert client_address("10.0.0.1", [f"198.51.100.1, {garbage}"], PROXIES) == "10.0.0.1"
    assert client_address("10.0.0.1", [f"198.51.100.1, {garbage}, 10.0.0.2"], PROXIES) == "10.0.0.2"
    assert client_address("10.0.0.1", [f"{garbage}, 198.51.100.1"], PROXIES) == "198.51.100.1"


def test_a_mapped_peer_is_the_ipv4_address_that_it_is() -> None:
    assert client_address("::ffff:203.0.113.9", [], ()) == "203.0.113.9"
    assert client_address("::ffff:10.0.0.1", ["198.51.100.1"], PROXIES) == "198.51.100.1"


def test_a_peer_without_an_address_stays_as_it_is() -> None:
    assert client_address("", ["198.51.100.1"], PROXIES) == ""


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_ipv6_counts_by_its_64(address: str, key: str) -> None:
    assert limit_key(address) == key


def test_neighbouring_ipv6_networks_count_apart() -> None:
    assert limit_key("2001:db8:1:2::1") != limit_key("2001:db8:1:3::1")


def test_a_mapped_network_is_read_as_ipv4() -> None:
    assert [str(network) for network in parse_networks(["::ffff:10.0.0.0/104"])] == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ("proxy.example.com", "is not an address"),
        ("", "is not an address"),
        ("10.0.0.0/33", "is not an address"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("0.0.0.0/0", "choose its own address"),
        ("::/0", "choose its own address"),
        ("::ffff:0.0.0.0/96", "choose its own address"),
    ],
)
def test_a_wrong_network_is_named_with_its_fault(item: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_networks(["10.0.0.0/8", item])
