"""
Look at the files of a TLS endpoint, and at what clients make of them. Blocking.
"""

from __future__ import annotations

import os
import ssl
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from forgereg.certificates import Term, look_at_term, read_certificates
from forgereg.cli.findings import Finding, Level, doubtful, fine, skipped, wrong
from forgereg.endpoint import Endpoint

#: What OpenSSL says of names. Source: X509_STORE_CTX_get_error(3).
_OTHER_NAME = (62, 64)
_LEVELS = {Term.GOOD: Level.OK, Term.SOON: Level.WARNING}


class _Unusable(Exception):
    """A file cannot be used; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


@frozen
class Files:
    """
    The files of an endpoint, read.

    :ivar chain: what clients are sent: the registry's own certificate first.
    :ivar unsent: certificates that lie behind it in its file, which are not.
    """

    key: Path
    chain: Sequence[x509.Certificate]
    unsent: Sequence[x509.Certificate]

    @property
    def own(self) -> x509.Certificate:
        """The registry's certificate."""
        return self.chain[0]

    @property
    def names(self) -> list[str]:
        """What it is for; empty where it does not say so as clients read it."""
        kind = x509.SubjectAlternativeName
        try:
            found = self.own.extensions.get_extension_for_class(kind).value
        except (x509.ExtensionNotFound, ValueError):
            return []
        addresses = map(str, found.get_values_for_type(x509.IPAddress))
        return [*found.get_values_for_type(x509.DNSName), *addresses]


def look_at_tls(
    endpoint: Endpoint, names: Sequence[str], here: str, is_live: bool
) -> Iterator[Finding]:
    """
    Look at the certificate as it lies there, and as clients see it.

    :param names: what clients call the registry, as the operator says.
    :param here: what the machine calls itself.
    :param is_live: whether a registry answers there.
    """
    key, certificate, more = endpoint.tls_files
    try:
        found = _read(key, certificate, more)
    except _Unusable as e:
        yield e.finding
        others = "tls dates", "tls name", "tls trust"
        yield from skipped("there is no certificate with its key", *others)
        return
    yield from _look_at_key(key)
    yield from _look_at_dates(found.chain)
    if found.unsent:
        yield doubtful(
            "tls chain",
            f"only the first certificate of {certificate} is sent to clients",
            "put the others into a file of their own, and add :extraCertChain=<file>",
        )
    own = found.own.public_bytes(serialization.Encoding.DER)
    if is_live and (shown := _shown(endpoint)) and shown != own:
        yield doubtful(
            "tls",
            f"the registry that runs shows another certificate than {certificate} has",
            "restart it",
        )
    if not found.names:
        yield wrong(
            "tls name",
            f"{certificate} has no subjectAltName: docker, podman and containerd"
            " refuse it",
            "have it made with one, as by openssl req … -addext"
            f" subjectAltName=DNS:{here}",
        )
        yield from skipped("clients refuse it", "tls trust")
        return
    yield from _look_at_names(found, names, here)
    yield _look_at_trust(endpoint, found, is_live)


def _read(key: Path, certificate: Path, more: Path | None) -> Files:
    what = "tls key"
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except OSError as e:
        raise _unreadable(what, key, e) from e
    except TypeError:
        advice = f"take its password away: openssl pkey -in {key} -out <file>"
        raise _unusable(what, f"{key} has a password", advice) from None
    except (ValueError, UnsupportedAlgorithm):
        advice = "set privateKey= to a file with -----BEGIN PRIVATE KEY-----"
        raise _unusable(what, f"{key} has no private key", advice) from None
    listed = _certificates(certificate)
    if _written(private.public_key()) != _written(listed[0].public_key()):
        advice = "take the pair that was made together"
        text = f"{key} is not the key of {certificate}"
        raise _unusable(what, text, advice)
    if more is None:
        return Files(key, listed[:1], listed[1:])
    return Files(key, [listed[0], *_certificates(more)], ())


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return read_certificates(path)
    except OSError as e:
        raise _unreadable("tls certificate", path, e) from e
    except ValueError:
        advice = "set certKey= to a file with -----BEGIN CERTIFICATE-----"
        text = f"{path} has no certificate"
        raise _unusable("tls certificate", text, advice) from None


def _unreadable(what: str, path: Path, error: OSError) -> _Unusable:
    text = f"{path} cannot be read: {error.strerror}"
    advice = "see that it is spelt right, and let the registry's user read it"
    return _unusable(what, text, advice)


def _unusable(what: str, text: str, advice: str) -> _Unusable:
    return _Unusable(wrong(what, text, advice))


def _written(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _look_at_key(key: Path) -> Iterator[Finding]:
    if stat.S_IMODE(os.stat(key).st_mode) & 0o007:
        yield doubtful("tls key", f"everybody can read {key}", f"chmod o= {key}")
    else:
        yield fine("tls key", f"{key} belongs to the certificate")


def _look_at_dates(chain: Sequence[x509.Certificate]) -> Iterator[Finding]:
    for each in chain:
        term, text = look_at_term(each, datetime.now(UTC))
        level = _LEVELS.get(term, Level.ERROR)
        yield Finding("tls dates", level, text, term.advice)


def _look_at_names(found: Files, names: Sequence[str], here: str) -> Iterator[Finding]:
    """Meet the registry as a client does that calls it by each of its names."""
    own = ssl.create_default_context(cadata=_pem(found.chain[:1]))
    own.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    listed = ", ".join(found.names)
    for name in names or [here]:
        error = _meet(found, own, name)
        if error is None:
            yield fine("tls name", f"the certificate is for {name}")
        elif error.verify_code not in _OTHER_NAME:
            continue  # its dates, which were told of
        elif names:
            advice = "have one made that names it, or call the registry as it says"
            text = f"the certificate is for {listed}, not for {name}"
            yield wrong("tls name", text, advice)
        else:
            advice = "ask again with --name and what clients call the registry"
            yield doubtful("tls name", f"the certificate is for {listed}", advice)


def _look_at_trust(endpoint: Endpoint, found: Files, is_live: bool) -> Finding:
    """Meet the registry as a client does that trusts what this machine trusts."""
    name = found.names[0].replace("*", "registry", 1)
    context = ssl.create_default_context()
    error = (
        _meet_live(endpoint, context, name) if is_live else _meet(found, context, name)
    )
    if error is None:
        return fine("tls trust", "this machine trusts the certificate")
    last = found.chain[-1]
    place = f"{name}:{endpoint.port}/"
    install = (
        f"/etc/docker/certs.d/{place}ca.crt (docker),"
        f" /etc/containers/certs.d/{place}ca.crt (podman, skopeo), as ca = in"
        f" /etc/containerd/certs.d/{place}hosts.toml (containerd), or into"
        " /usr/local/share/ca-certificates with update-ca-certificates (all of them)"
    )
    advice = f"on each client, copy it to {install}"
    if last.issuer != last.subject:
        issuer = last.issuer.rfc4514_string()
        advice = (
            f"send clients what leads to a CA that they trust, by extraCertChain=; if"
            f" {issuer} is a CA of your own, on each client copy its certificate to"
            f" {install}"
        )
    return doubtful("tls trust", f"this machine: {error.verify_message}", advice)


def _pem(chain: Sequence[x509.Certificate]) -> str:
    encoding = serialization.Encoding.PEM
    return "".join(each.public_bytes(encoding).decode() for each in chain)


def _meet(
    found: Files, context: ssl.SSLContext, name: str
) -> ssl.SSLCertVerificationError | None:
    """Have a client and a server of these files shake hands, without a network."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as chain:
        chain.write(_pem(found.chain))
        chain.flush()
        server.load_cert_chain(chain.name, found.key)
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        context.wrap_bio(ways[0], ways[1], server_hostname=name),
        server.wrap_bio(ways[1], ways[0], server_side=True),
    )
    # The client has seen all there is to see in its third turn, at the latest.
    for end in ends * 3:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as e:
            return e
    return None


def _meet_live(
    endpoint: Endpoint, context: ssl.SSLContext, name: str
) -> ssl.SSLCertVerificationError | None:
    try:
        with closing(endpoint.connect()) as channel:
            context.wrap_socket(channel, server_hostname=name).close()
    except ssl.SSLCertVerificationError as e:
        return e
    except OSError:
        return None  # which the look at the port tells of
    return None


def _shown(endpoint: Endpoint) -> bytes | None:
    """Give the certificate that clients are shown; None where there is none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with closing(endpoint.connect()) as channel:
            with closing(context.wrap_socket(channel)) as tls:
                return tls.getpeercert(binary_form=True)
    except OSError:
        return None
