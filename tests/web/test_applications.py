"""Tests for `forgereg.web.applications`: what is asked for, and by whom."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.client import Connection, ask
from tests.doubles import Package
from tests.registry import HELLO, Served, archive

TARGET = "/-/applications/shop/compose.yaml"


@pytest.fixture
def shop(served: Served) -> Served:
    """A registry with an application of one image."""
    entries = {
        "web.tar.gz": archive(HELLO),
        "compose.yaml": b"services: {web: {image: web}}",
    }
    output = served.store.folder("shop", entries)
    served.nix.packages["shop"] = Package("1.0", {"containers": output})
    return served


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("localhost:6443", "localhost:6443"),
        ("localhost", "localhost"),
        ("Registry.Example", "registry.example"),
        ("registry", "registry:80"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]:6443", "[2001:db8::1]:6443"),
        ("[::1]", "[::1]:80"),
    ],
)
def test_hosts(shop: Served, host: str, written: str) -> None:
    """Images are pulled from where the file was fetched, as clients write it."""
    answer = ask(shop.site, "GET", TARGET, host=host)
    reference = f'"{written}/applications/shop/web@sha256:'
    assert reference in answer.body.decode()


@pytest.mark.parametrize(
    ("address", "written"),
    [("127.0.0.1", "forge:443"), ("192.0.2.1", "inside:80")],
)
def test_behind_a_proxy(shop: Served, address: str, written: str) -> None:
    """A proxy that is trusted says what the client calls the registry; nobody else does."""
    shop.set(trusted_proxies=(ip_network("127.0.0.0/8"),))
    connection = Connection.to(shop.site, address=address)
    headers = [
        ("X-Forwarded-Host", "its-own-words, forge"),
        ("X-Forwarded-Proto", "https"),
    ]
    connection.ask("GET", TARGET, headers, host="inside")
    assert f'"{written}/applications/shop/web@' in connection.answer().body.decode()


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a/b",
        'a"b',
        "a#b",
        "a@b",
        "a:b",
        "-a",
        "a..b",
        "é.example",
        "a" * 300,
    ],
)
def test_hosts_that_are_none(shop: Served, host: str) -> None:
    """What a client says of the host gets into no file unless it is a host."""
    answer = ask(shop.site, "GET", TARGET, host=host)
    assert answer.status == 400
    assert answer["Content-Type"] == "application/json"
    assert shop.nix.argvs == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_methods(shop: Served, method: str) -> None:
    """Nothing can be changed here."""
    answer = ask(shop.site, method, TARGET)
    assert answer.status == 405
    assert set((answer["Allow"] or "").split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "target",
    [
        "/-/applications",
        "/-/applications/",
        "/-/applications/shop",
        "/-/applications/shop/web.tar.gz",
        "/-/applications/shop/../compose.yaml/x",
        "/-/applications//compose.yaml",
    ],
)
def test_nothing_else(shop: Served, target: str) -> None:
    """Only compose files are served of an application's directory."""
    answer = shop.get(target)
    assert answer.status in (400, 404)
    assert answer.error[1]
    assert shop.nix.argvs == []


@pytest.mark.parametrize(
    "application", ["Shop", "..", "a%2F..", "%00", "%22", "x" * 300, "a//b", "/a"]
)
def test_names_that_are_none(shop: Served, application: str) -> None:
    """What is no name is refused before nix is asked."""
    answer = shop.get(f"/-/applications/{application}/compose.yaml")
    assert answer.status in (400, 404)
    assert answer.error[1]
    assert shop.nix.argvs == []
