"""Tests for `forgereg.cli.certificates`: what clients will make of a TLS endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgereg.cli.certificates import look_at_tls
from forgereg.endpoint import parse_endpoint
from tests.certificates import certify
from tests.findings import Told


def tls(files: str, *names: str) -> Told:
    """Ask about an endpoint with TLS where no registry runs."""
    endpoint = parse_endpoint(f"ssl:6443:{files}:interface=127.0.0.1")
    return Told(list(look_at_tls(endpoint, names, "this.machine", False)))


def test_a_good_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that this machine trusts, for the name that clients use, is well."""
    ca = certify("A CA", is_ca=True)
    pair = certify("forge", "forge.test", "10.0.0.1", by=ca)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    told = tls(pair.write(tmp_path), "forge.test", "10.0.0.1")
    for what in ("tls key", "tls dates", "tls name", "tls trust"):
        assert told.of(what)[0] == "ok", told.findings


def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    """Who has signed their own certificate reads where clients look for it."""
    told = tls(certify("forge", "forge.test").write(tmp_path))
    level, said = told.of("tls trust")
    assert level == "warning" and "self" in said
    for place in ("/etc/docker/certs.d/forge.test:", "/etc/containers/", "hosts.toml"):
        assert place in said
    assert told.of("tls name")[0] == "warning"


def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    """A certificate that does not name the registry as clients do is told of."""
    files = certify("forge", "forge.test", "*.forge.test").write(tmp_path)
    told = tls(files, "a.forge.test", "other.test")
    assert told.of("tls name") == (
        "error",
        "the certificate is for forge.test, *.forge.test, not for other.test; have one"
        " made that names it, or call the registry as it says",
    )


def test_a_certificate_without_names(tmp_path: Path) -> None:
    """A certificate that has a common name alone is refused by clients written in Go."""
    level, said = tls(certify("localhost").write(tmp_path)).of("tls name")
    assert level == "error" and "no subjectAltName" in said


@pytest.mark.parametrize(
    ("begin", "days", "level", "said"),
    [
        (-9, -1, "error", "ended on"),
        (-9, 5, "warning", "ends on"),
        (3, 9, "error", "is valid from"),
    ],
)
def test_dates(tmp_path: Path, begin: int, days: int, level: str, said: str) -> None:
    """A certificate that is too old, too young, or soon will be, is told of."""
    pair = certify("forge", "localhost", begin=begin, days=days)
    told = tls(pair.write(tmp_path)).of("tls dates")
    assert told[0] == level and said in told[1]


def test_certificates_that_are_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates behind the first one are not sent, which a chain of their own mends."""
    ca = certify("A CA", is_ca=True)
    between = certify("Between", is_ca=True, by=ca)
    files = (pair := certify("forge", "forge.test", by=between)).write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    (tmp_path / "cert.pem").write_bytes(pair.pem + between.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    told = tls(files)
    assert told.of("tls chain")[0] == told.of("tls trust")[0] == "warning"
    assert "CN=Between" in told.of("tls trust")[1]
    (tmp_path / "chain.pem").write_bytes(between.pem)
    told = tls(f"{files}:extraCertChain={tmp_path}/chain.pem")
    assert told.of("tls trust")[0] == "ok"


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    """Files that are gone, mixed up or locked are told of, with what to do."""
    pair = certify("forge", "localhost")
    files = pair.write(tmp_path)
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    other = tmp_path / "other.pem"
    other.write_bytes(certify("other", "localhost").key_pem())
    locked = tmp_path / "locked.pem"
    locked.write_bytes(pair.key_pem(b"sesame"))
    for given, what, said in (
        (f"privateKey=/gone:certKey={cert}", "tls key", "/gone cannot be read"),
        (f"privateKey={key}:certKey=/gone", "tls certificate", "/gone cannot be read"),
        (f"privateKey={cert}:certKey={cert}", "tls key", "has no private key"),
        (f"privateKey={key}:certKey={key}", "tls certificate", "has no certificate"),
        (f"privateKey={other}:certKey={cert}", "tls key", "is not the key of"),
        (f"privateKey={locked}:certKey={cert}", "tls key", "has a password"),
    ):
        level, told = tls(given).of(what)
        assert level == "error" and said in told
    key.chmod(0o644)
    assert tls(files).of("tls key")[0] == "warning"
