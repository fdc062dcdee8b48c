from __future__ import annotations

import pytest

from pairing_server.security.origins import Origins, same_host

LISTED = Origins.parse(
    [
        "https://a.com",
        "https://app.example.com:8443",
        "http://localhost:5173",
        "https://*.example.org",
        "https://*.example.net:444",
        "tauri://localhost",
        "http://[::1]:3000",
    ]
)


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.com",
        "https://a.com:443",
        "HTTPS://A.com",
        "https://app.example.com:8443",
        "http://localhost:5173",
        "https://one.example.org",
        "https://xn--bcher-kva.example.org",
        "https://one.example.net:444",
        "tauri://localhost",
        "http://[0:0:0:0:0:0:0:1]:3000",
    ],
)
def test_a_listed_origin_is_allowed(origin: str) -> None:
    assert LISTED.allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "file://",
        "http://a.com",
        "https://a.com:8443",
        "https://a.com.evil.io",
        "https://evila.com",
        "https://a.com.",
        "https://a.com/",
        "https://a.com/path",
        "https://a.com?query",
        "https://a.com#part",
        "https://a.com@evil.io",
        "https://user@a.com",
        "https://a.com\\.evil.io",
        "https://a.com\n",
        "https://a.com\t.evil.io",
        " https://a.com",
        "https://a.com https://evil.io",
        "https://a.com:0443",
        "https://a.com:99999",
        "https://a.com:",
        "//a.com",
        "a.com",
        "https://app.example.com",
        "https://example.org",
        "https://two.one.example.org",
        "https://one.example.org.evil.io",
        "https://evilexample.org",
        "https://.example.org",
        "https://*.example.org",
        "http://one.example.org",
        "https://one.example.org:8443",
        "https://one.example.net",
        "tauri://localhost.evil.io",
        "http://tauri.localhost",
        "http://[::2]:3000",
        "http://[::1",
        "https://а.com",  # a Cyrillic letter
        "https://" + "a." * 200 + "com",
    ],
)
def test_any_other_origin_is_refused(origin: str) -> None:
    assert not LISTED.allows(origin)


@pytest.mark.parametrize("opaque", ["null", "file://"])
def test_an_opaque_origin_is_allowed_only_if_literally_listed(opaque: str) -> None:
    assert Origins.parse([opaque]).allows(opaque)
    assert not Origins.parse(["https://*.example.org"]).allows(opaque)
    assert not Origins.parse([{"null": "file://", "file://": "null"}[opaque]]).allows(opaque)


def test_a_letter_whose_lower_case_is_ascii_is_not_that_letter() -> None:
    kelvin_sign = "\u212a"
    assert not Origins.parse(["https://k.com"]).allows(f"https://{kelvin_sign}.com")
    with pytest.raises(ValueError, match="xn--"):
        Origins.parse([f"https://{kelvin_sign}.com"])


def test_an_empty_list_allows_nothing() -> None:
    assert not Origins.parse([]).allows("https://a.com")


def test_the_default_port_may_be_listed_and_left_out() -> None:
    assert Origins.parse(["http://a.com:80"]).allows("http://a.com")
    assert not Origins.parse(["http://a.com:80"]).allows("http://a.com:443")


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("*", "every page"),
        ("", "scheme"),
        ("a.com", "scheme"),
        ("https://a.com/", "final slash"),
        ("https://user@a.com", "user"),
        ("https://*", "first label"),
        ("https://*.*.a.com", "first label"),
        ("https://a*.example.com", "first label"),
        ("https://www.*.com", "first label"),
        ("https://*.com", "two labels"),
        ("http://*.0.0.1", "two labels"),
        ("tauri://*.example.com", "http"),
        ("https://bücher.example", "xn--"),
        ("https://a.com:0", "scheme://host:port"),
    ],
)
def test_an_entry_that_is_no_origin_is_named_with_its_fault(entry: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        Origins.parse(["https://a.com", entry])
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("http://localhost:8089", "http", "localhost:8089"),
        ("http://127.0.0.1:8089", "http", "127.0.0.1:8089"),
        ("https://192.168.1.7", "https", "192.168.1.7:443"),
        ("http://[::1]:8089", "http", "[::1]:8089"),
    ],
)
def test_the_own_host_is_allowed_if_it_is_an_address_or_localhost(
    origin: str, scheme: str, host: str
) -> None:
    assert same_host(origin, scheme, host)


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("http://evil.io:8089", "http", "evil.io:8089"),
        ("http://localhost.evil.io", "http", "localhost.evil.io"),
        ("http://localhost:8090", "http", "localhost:8089"),
        ("https://localhost:8089", "http", "localhost:8089"),
        ("http://127.0.0.1:8089", "http", "localhost:8089"),
        ("http://127.1:8089", "http", "127.1:8089"),
        ("null", "http", "localhost"),
        ("http://localhost", "http", "user@localhost"),
        ("http://localhost", "http", "localhost/x"),
        ("", "http", ""),
    ],
)
def test_the_own_host_is_not_trusted_by_a_name_or_if_it_differs(origin: str, scheme: str, host: str) -> None:
    assert not same_host(origin, scheme, host)
