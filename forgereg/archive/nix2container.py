"""
From nix2container's JSON to an image, and to the bytes of its blobs.

The JSON says of each layer its digest, and either the file in the Nix store that holds
it or the store paths that it is made of. It has no config: that is written here, with
the bytes that nix2container's own tool writes.

Source: nix2container, types/types.go, nix/image.go; OCI image-spec v1.1,
specs-go/v1/config.go; Go, encoding/json.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from attrs import frozen

from forgereg.archive.goregex import check_pattern
from forgereg.archive.members import MAX_JSON
from forgereg.archive.reading import Packed, Reading
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.archive.storetar import (
    LayerTree,
    Perm,
    StorePath,
    find_in_store,
    open_pieces,
)
from forgereg.oci.descriptor import Compression, Descriptor, Image, Place
from forgereg.oci.errors import ArchiveInvalid, BlobUnknown, DigestInvalid
from forgereg.oci.manifest import sha256, write_manifests
from forgereg.oci.reference import Digest, parse_digest, shown

#: How large the JSON may be, in bytes.
MAX_TEXT = 16 * 2**20
_MAX_LAYERS = 1000

_T = TypeVar("_T")
#: Where a path that begins with ``/nix/store`` lies; it follows no link.
Real = Callable[[str], Path]

_COMPRESSIONS = {Kind.GZIP: Compression.GZIP, Kind.ZSTD: Compression.ZSTD}
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_MODE = re.compile(r"[ \t]*([+-]?[0-7]{1,21})")
_MORE_MODE = re.compile(r"0*([0-7]{1,4})")
#: How Go's encoding/json writes what HTML or JavaScript could trip over.
_ESCAPES = str.maketrans(
    {c: f"\\u{ord(c):04x}" for c in ("<", ">", "&", "\u2028", "\u2029")}
)

_DOCUMENT_KEYS = {"version", "image-config", "layers", "arch", "created"}
_PATH_KEYS = {"path", "options"}
_OPTION_KEYS = {"rewrite", "perms", "ignoreDestination"}
_PERM_KEYS = {"regex", "mode", "orMode", "uid", "gid", "uname", "gname"}


@frozen
class _Layer:
    """
    A layer as the JSON has it.

    :ivar file: the store path that holds its bytes; empty where they are made.
    """

    digest: Digest
    diff_id: str
    size: int
    file: str
    sources: tuple[StorePath, ...]


def read_nix2container(text: bytes, real: Real) -> Reading:
    """
    Read the JSON. Blocking: looks at the store paths, but does not read them.

    The place of what is made, not read, is the JSON itself: see `open_blob`.

    :raises ArchiveInvalid: it is not nix2container's, makes no sense, wants what this
        registry cannot do, or needs what is not in the store.
    """
    document = _document(text)
    layers = _layers(document)
    places: dict[Digest, Place] = {}
    descriptors: list[Descriptor] = []
    for layer in layers:
        for source in layer.sources:
            find_in_store(source.path, real)
        descriptors.append(_described(layer, real))
        places[layer.digest] = Place(0, layer.file, is_plain=bool(layer.file))
    config = _config(document, layers)
    places[sha256(config)] = Place(0)
    image = Image(Descriptor(sha256(config), len(config)), tuple(descriptors))
    if len(image.blobs) != len(places):
        raise ArchiveInvalid("two layers have one digest, but not one size")
    packed = Packed((), write_manifests(image), image.blobs)
    return Reading((packed,), places)


def open_blob(text: bytes, digest: Digest, real: Real) -> BinaryIO:
    """
    Open a blob whose place is the JSON. Blocking, as is reading and closing it.

    What it gives is what the JSON says how to make, whatever its digest may be.

    :raises ArchiveInvalid: as `read_nix2container` does; reading may raise it as well.
    :raises BlobUnknown: the JSON does not speak of it.
    """
    document = _document(text)
    layers = _layers(document)
    for layer in layers:
        if layer.digest == digest and not layer.file:
            return open_pieces(_make(layer, real))
    config = _config(document, layers)
    if sha256(config) == digest:
        return io.BytesIO(config)
    raise BlobUnknown(f"the image's JSON has no {digest}")


def _make(layer: _Layer, real: Real) -> Generator[bytes, None, None]:
    tree = LayerTree(real)
    for source in layer.sources:
        tree.add(source)
    first, *others = tree.dialects()
    for dialect in (first, *others) if others else ():
        hashed = hashlib.new(layer.digest.algorithm)
        for piece in tree.write(dialect):
            hashed.update(piece)
        if hashed.hexdigest() == layer.digest.encoded:
            first = dialect
            break
    yield from tree.write(first)


def _described(layer: _Layer, real: Real) -> Descriptor:
    if not layer.file:
        return Descriptor(layer.digest, layer.size)
    where = find_in_store(layer.file, real)
    try:
        if where.is_symlink() or not where.is_file():
            raise ArchiveInvalid(f"the layer {shown(layer.file)} is not a file")
        size = where.stat().st_size
        with where.open("rb") as file:
            kind = sniff(file.read(HEAD_BYTES))
    except OSError as e:
        raise ArchiveInvalid(
            f"the layer {shown(layer.file)} cannot be read: {e.strerror}"
        ) from e
    if layer.size not in (0, size):
        raise ArchiveInvalid(
            f"the layer {shown(layer.file)} has {size} bytes,"
            f" but the image's JSON says {layer.size}"
        )
    if kind is Kind.XZ:
        raise ArchiveInvalid(f"the layer {shown(layer.file)} is xz: use gzip or zstd")
    return Descriptor(layer.digest, size, _COMPRESSIONS.get(kind, Compression.NONE))


def _document(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_TEXT:
        raise ArchiveInvalid(f"the image's JSON has more than {MAX_TEXT} bytes")
    try:
        document = json.loads(text)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as e:
        raise ArchiveInvalid("the image is JSON that cannot be read") from e
    if not isinstance(document, dict) or not {"image-config", "layers"} <= set(
        document
    ):
        raise ArchiveInvalid("the image is JSON, but not nix2container's")
    if _get(document, "version", int, 1) != 1:
        raise ArchiveInvalid("the image's JSON is of a version that is not known here")
    _refuse_others(document, _DOCUMENT_KEYS)
    return document


def _layers(document: dict[str, Any]) -> list[_Layer]:
    values = _list(document, "layers", dict)
    if len(values) > _MAX_LAYERS:
        raise ArchiveInvalid(f"the image has more than {_MAX_LAYERS} layers")
    return [_layer(value) for value in values]


def _layer(value: dict[str, Any]) -> _Layer:
    text = _get(value, "digest", str, "")
    diff_id = _get(value, "diff_ids", str, "") or text
    try:
        digest = parse_digest(text)
        parse_digest(diff_id)
    except DigestInvalid as e:
        raise ArchiveInvalid(f"the image's JSON has a layer whose {e.detail}") from e
    size = _get(value, "size", int, 0)
    file = _get(value, "layer-path", str, "")
    sources = tuple(_source(v) for v in _list(value, "paths", dict))
    if size < 0 or (not file and size == 0):
        raise ArchiveInvalid(f"the layer {digest} has no size in the image's JSON")
    if not file and diff_id != text:
        raise ArchiveInvalid(
            f"the layer {digest} is compressed when it is pushed, which cannot be done"
            " here to the byte: write it compressed when it is built, or not at all"
        )
    return _Layer(digest, diff_id, size, file, sources)


def _source(value: dict[str, Any]) -> StorePath:
    _refuse_others(value, _PATH_KEYS)
    options = _get(value, "options", dict, {})
    _refuse_others(options, _OPTION_KEYS)
    rewrite = _get(options, "rewrite", dict, {})
    source = StorePath(
        _get(value, "path", str, ""),
        _get(rewrite, "regex", str, ""),
        _get(rewrite, "repl", str, ""),
        _get(options, "ignoreDestination", str, ""),
        tuple(_perm(v) for v in _list(options, "perms", dict)),
    )
    check_pattern(source.rewrite)
    check_pattern(source.ignored)
    return source


def _perm(value: dict[str, Any]) -> Perm:
    _refuse_others(value, _PERM_KEYS)
    pattern = _get(value, "regex", str, "")
    check_pattern(pattern)
    mode_text = _get(value, "mode", str, "")
    more_text = _get(value, "orMode", str, "")
    mode = _MODE.match(mode_text)
    more = _MORE_MODE.fullmatch(more_text)
    if (mode_text and not mode) or (more_text and not more):
        wrong = more_text if mode or not mode_text else mode_text
        raise ArchiveInvalid(f"a layer has permissions {shown(wrong)}: not octal")
    return Perm(
        pattern,
        int(mode[1], 8) if mode else None,
        int(more[1], 8) if more else 0,
        _get(value, "uid", int, 0),
        _get(value, "gid", int, 0),
        _get(value, "uname", str, "").encode(),
        _get(value, "gname", str, "").encode(),
    )


def _config(document: dict[str, Any], layers: list[_Layer]) -> bytes:
    """Write the config of an image, as Go would write down an OCI image."""
    settings = _get(document, "image-config", dict, {})
    config = {
        "created": _time(document, "created"),
        "architecture": _get(document, "arch", str, "") or "amd64",
        "os": "linux",
        "config": _kept(
            {
                "User": _get(settings, "User", str, ""),
                "ExposedPorts": _set(settings, "ExposedPorts"),
                "Env": _list(settings, "Env", str),
                "Entrypoint": _list(settings, "Entrypoint", str),
                "Cmd": _list(settings, "Cmd", str),
                "Volumes": _set(settings, "Volumes"),
                "WorkingDir": _get(settings, "WorkingDir", str, ""),
                "Labels": _labels(settings),
                "StopSignal": _get(settings, "StopSignal", str, ""),
                "ArgsEscaped": _get(settings, "ArgsEscaped", bool, False),
            }
        ),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [_history(value) for value in _list(document, "layers", dict)],
    }
    if not config["created"]:
        del config["created"]
    written = json.dumps(config, ensure_ascii=False, separators=(",", ":"))
    body = written.translate(_ESCAPES).encode()
    if len(body) > MAX_JSON:
        raise ArchiveInvalid("the image's config is too large")
    return body


def _history(layer: dict[str, Any]) -> dict[str, Any]:
    history = _get(layer, "History", dict, {})
    return _kept(
        {
            "created": _time(history, "created"),
            "created_by": _get(history, "created_by", str, ""),
            "author": _get(history, "author", str, ""),
            "comment": _get(history, "comment", str, ""),
            "empty_layer": _get(history, "empty_layer", bool, False),
        }
    )


def _time(value: dict[str, Any], key: str) -> str:
    text = _get(value, key, str, "")
    match = _TIME.fullmatch(text)
    if match is None:
        if text:
            raise ArchiveInvalid(f"{key} in the image's JSON is not a time")
        return ""
    seconds, fraction, zone = match.groups()
    fraction = (fraction or "").rstrip("0")
    zone = "Z" if zone[1:] == "00:00" else zone
    return seconds + (f".{fraction}" if fraction else "") + zone


def _set(value: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: {} for name in sorted(_get(value, key, dict, {}))}


def _labels(value: dict[str, Any]) -> dict[str, str]:
    labels = _get(value, "Labels", dict, {})
    return {name: _get(labels, name, str, "") for name in sorted(labels)}


def _kept(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _get(value: dict[str, Any], key: str, kind: type[_T], default: _T) -> _T:
    found = value.get(key)
    if found is None:
        return default
    # A bool is an int to Python, but not to JSON.
    if type(found) is not kind:
        raise ArchiveInvalid(f"{shown(key)} in the image's JSON is not {_KINDS[kind]}")
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise ArchiveInvalid(f"{shown(key)} in the image's JSON is too large")
    return found


_KINDS: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    int: "a whole number",
    list: "a list",
    str: "a text",
}


def _list(value: dict[str, Any], key: str, kind: type[_T]) -> list[_T]:
    found: list[Any] = _get(value, key, list, [])
    for one in found:
        if type(one) is not kind:
            raise ArchiveInvalid(
                f"{shown(key)} in the image's JSON is not a list of {_KINDS[kind]}"
            )
    return found


def _refuse_others(value: dict[str, Any], known: set[str]) -> None:
    """Refuse what could change the bytes in a way that is not known here."""
    for key in sorted(value.keys() - known):
        raise ArchiveInvalid(
            f"the image's JSON asks for {shown(key)}, which this registry cannot do"
        )
