"""
Write docker-archives as each tool does. Pure: every function gives bytes or entries.

An archive is made in three steps, so that a test can change what lies between them::

    hello = Recipe((layer("lower"), layer("upper", gz)), tags=("hello:2.12",))
    entries = build_layered_image(hello)        # what lies in the archive, in order
    archive = gz(tar(entries))                  # its bytes

Every writer of `WRITERS` takes one recipe or more (an archive may hold several images)
and gives the same images in its tool's layout; every function of `PACKS` compresses.
`image_of` says which image a reader must find.

Source: nixpkgs ``pkgs/build-support/docker/default.nix`` and
``stream_layered_image.py``; ``docker save`` 20.10 and 26.1; ``podman save`` 5.4;
``skopeo copy docker-archive:`` 1.18.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from backports import zstd

from forgereg.oci.descriptor import Compression, Descriptor, Image
from forgereg.oci.media import LAYERS, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from forgereg.oci.reference import Digest

Pack = Callable[[bytes], bytes]


def plain(data: bytes) -> bytes:
    """Leave bytes as they are."""
    return data


def gz(data: bytes) -> bytes:
    """Compress with gzip as ``pigz -nT`` does: one member, no name, no time."""
    return gzip.compress(data, 1, mtime=0)


def zst(data: bytes) -> bytes:
    """Compress with zstd as its command does: one frame that ends in a checksum."""
    options = {int(zstd.CompressionParameter.checksum_flag): 1}
    return zstd.compress(data, options=options)


def xz(data: bytes) -> bytes:
    """Compress with xz as its command does, but with little effort."""
    return lzma.compress(data, preset=0)


PACKS: dict[str, Pack] = {"tar": plain, "gz": gz, "zst": zst, "xz": xz}

_COMPRESSIONS: dict[Pack, Compression] = {
    plain: Compression.NONE,
    gz: Compression.GZIP,
    zst: Compression.ZSTD,
}


@frozen
class Entry:
    """
    One member of a tar archive.

    :ivar pax: extended headers to write before it.
    """

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o444
    mtime: int = 0
    pax: Mapping[str, str] = field(factory=dict)


def symlink(name: str, target: str, mode: int = 0o777) -> Entry:
    """Give a symbolic link; the target is relative to the folder of the name."""
    return Entry(name, type=tarfile.SYMTYPE, target=target, mode=mode)


def hard_link(name: str, target: str) -> Entry:
    """Give a hard link; the target is the name of another member."""
    return Entry(name, type=tarfile.LNKTYPE, target=target)


def folder(name: str) -> Entry:
    """Give a directory."""
    return Entry(name, type=tarfile.DIRTYPE, mode=0o555)


def json_entry(name: str, value: Any) -> Entry:
    """Give a member that holds a value as JSON."""
    return Entry(name, json.dumps(value).encode())


def tar(entries: Iterable[Entry], format: int = tarfile.PAX_FORMAT) -> bytes:
    """
    Write entries down as a tar archive, in their order.

    :param format: ``tarfile.PAX_FORMAT``, ``GNU_FORMAT`` or ``USTAR_FORMAT``.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname = entry.type, entry.target
            info.size = len(entry.data)
            info.mode, info.mtime = entry.mode, entry.mtime
            info.pax_headers = dict(entry.pax)
            archive.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


def sha256_hex(data: bytes) -> str:
    """Give the sha256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


@frozen
class Layer:
    """
    One layer.

    :ivar diff_id: sha256 of the layer when it is unpacked, in hexadecimal digits.
    :ivar blob: the layer as it lies in the archive.
    """

    diff_id: str
    blob: bytes
    compression: Compression = Compression.NONE

    @property
    def hex(self) -> str:
        """The sha256 of the layer as it lies in the archive."""
        return sha256_hex(self.blob)


def layer(text: str, pack: Pack = plain) -> Layer:
    """Give a layer with one file in it, packed as it is to lie in the archive."""
    return layer_of(tar([Entry(f"{text}.txt", text.encode())]), pack)


def layer_of(unpacked: bytes, pack: Pack = plain) -> Layer:
    """Give a layer of these bytes, packed as it is to lie in the archive."""
    return Layer(sha256_hex(unpacked), pack(unpacked), _COMPRESSIONS[pack])


@frozen
class Recipe:
    """
    One image before it is archived.

    :ivar layers: lowest first; the same one may be there twice.
    :ivar tags: such as ``hello:2.12``; None where it was saved by its id.
    :ivar more: what else the config says.
    """

    layers: tuple[Layer, ...] = (layer("lower"), layer("upper"))
    tags: tuple[str, ...] | None = ("hello:2.12",)
    more: Mapping[str, Any] = field(factory=dict)

    def config(self, **style: Any) -> bytes:
        """Write the config; the style is what `json.dumps` takes."""
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/hello"], "Env": []},
            "created": "1970-01-01T00:00:01+00:00",
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{each.diff_id}" for each in self.layers],
            },
            "history": [{"created": "1970-01-01T00:00:01+00:00"} for _ in self.layers],
            **self.more,
        }
        return json.dumps(document, **style).encode()


def image_of(recipe: Recipe, config: bytes) -> Image:
    """
    Say which image a reader must find.

    :param config: the bytes of the config that the archive holds, see `config_in`.
    """
    return Image(
        Descriptor(Digest("sha256", sha256_hex(config)), len(config)),
        tuple(
            Descriptor(Digest("sha256", one.hex), len(one.blob), one.compression)
            for one in recipe.layers
        ),
    )


def config_in(entries: Iterable[Entry], position: int = 0) -> bytes:
    """Give the config's bytes of the image at this position of manifest.json."""
    data = {entry.name.removeprefix("./"): entry.data for entry in entries}
    config: bytes = data[json.loads(data["manifest.json"])[position]["Config"]]
    return config


def manifest_entry(recipe: Recipe, config: str, layers: Iterable[str]) -> Any:
    """Give what manifest.json says of one image; names are those of members."""
    tags = None if recipe.tags is None else list(recipe.tags)
    return {"Config": config, "RepoTags": tags, "Layers": list(layers)}


def build_image(*recipes: Recipe, from_image: bool = False) -> list[Entry]:
    """
    Lay out as dockerTools.buildImage: GNU tar sorts the names, ``./`` is the first.

    :param from_image: whether all but the top layer come from a base that pullImage
        gave: ``<id>/layer.tar`` are links then, and stand before their targets.
    """
    members: dict[str, Entry] = {}
    listed = []
    for recipe in recipes:
        config = recipe.config(indent=2) + b"\n"
        config_name = f"{sha256_hex(config)}.json"
        members[config_name] = Entry(config_name, config)
        names = []
        for number, one in enumerate(recipe.layers):
            ident = sha256_hex(f"{config_name}/{number}".encode())
            names.append(f"{ident}/layer.tar")
            members[ident] = folder(ident)
            members[f"{ident}/VERSION"] = Entry(f"{ident}/VERSION", b"1.0")
            members[f"{ident}/json"] = json_entry(f"{ident}/json", {"id": ident})
            if from_image and one is not recipe.layers[-1]:
                file = f"{one.hex}.tar"
                members[file] = Entry(file, one.blob)
                members[names[-1]] = symlink(names[-1], f"../{file}")
            else:
                members[names[-1]] = Entry(names[-1], one.blob)
        listed.append(manifest_entry(recipe, config_name, names))
    manifest = json.dumps(listed, indent=2).encode() + b"\n"
    members["manifest.json"] = Entry("manifest.json", manifest)
    members["repositories"] = json_entry("repositories", {"hello": {"2.12": "0" * 64}})
    sorted_members = [members[name] for name in sorted(members)]
    if from_image:
        sorted_members.sort(key=lambda entry: entry.type != tarfile.SYMTYPE)
    return [
        folder("./"),
        *(
            Entry(f"./{e.name}", e.data, e.type, e.target, e.mode, 315532800)
            for e in sorted_members
        ),
    ]


def build_image_from_pulled(*recipes: Recipe) -> list[Entry]:
    """Lay out as dockerTools.buildImage does on a base that pullImage gave."""
    return build_image(*recipes, from_image=True)


def build_layered_image(*recipes: Recipe) -> list[Entry]:
    """Lay out as dockerTools.buildLayeredImage: manifest.json last, no folders."""
    entries: dict[str, Entry] = {}
    listed = []
    for recipe in recipes:
        names = [f"{one.hex}/layer.tar" for one in recipe.layers]
        for name, one in zip(names, recipe.layers, strict=True):
            entries[name] = Entry(name, one.blob, mtime=1)
        config = recipe.config(indent=4)
        config_name = f"{sha256_hex(config)}.json"
        entries[config_name] = Entry(config_name, config, mtime=1)
        listed.append(manifest_entry(recipe, config_name, names))
    return [*entries.values(), json_entry("manifest.json", listed)]


def docker_save_20(*recipes: Recipe) -> list[Entry]:
    """Lay out as docker before 25: a repeated layer is a link to the first."""
    entries: list[Entry] = []
    configs: dict[str, Entry] = {}
    listed = []
    first: dict[str, str] = {}
    for recipe in recipes:
        config = recipe.config(separators=(",", ":"))
        config_name = f"{sha256_hex(config)}.json"
        names = []
        for number, one in enumerate(recipe.layers):
            ident = sha256_hex(f"{config_name}/{number}".encode())
            names.append(f"{ident}/layer.tar")
            entries += _legacy(ident)
            seen = first.setdefault(one.hex, ident)
            if seen == ident:
                entries.append(Entry(names[-1], one.blob, mode=0o100644))
            else:
                entries.append(symlink(names[-1], f"../{seen}/layer.tar", 0o120777))
        configs[config_name] = Entry(config_name, config, mode=0o100644)
        listed.append(manifest_entry(recipe, config_name, names))
    entries += [*configs.values(), json_entry("manifest.json", listed)]
    if any(recipe.tags for recipe in recipes):
        entries.append(json_entry("repositories", {"hello": {"2.12": "0" * 64}}))
    return entries


@define
class Layout:
    """An OCI layout that is being written."""

    blobs: dict[str, Entry] = field(factory=dict)
    heads: list[Any] = field(factory=list)

    def put(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Add a blob, and give its descriptor."""
        name = f"blobs/sha256/{sha256_hex(data)}"
        self.blobs[name] = Entry(name, data, mode=0o100644)
        digest = f"sha256:{sha256_hex(data)}"
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def put_json(self, value: Any, media_type: str, **more: Any) -> dict[str, Any]:
        """Add a blob of JSON, oddly written, and give its descriptor."""
        return self.put(json.dumps(value, indent=3).encode(), media_type, **more)

    def image(self, recipe: Recipe, **more: Any) -> dict[str, Any]:
        """Add an image, and give its manifest's descriptor."""
        config = self.put(recipe.config(separators=(",", ":")), OCI_CONFIG)
        layers = [
            self.put(
                one.blob, LAYERS[OCI_MANIFEST][one.compression], annotations={"n": "1"}
            )
            for one in recipe.layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config,
            "layers": layers,
            "annotations": {"org.example.kept": "é"},
        }
        return self.put_json(manifest, OCI_MANIFEST, **more)

    def index(self, *manifests: Any, **more: Any) -> dict[str, Any]:
        """Add an index, and give its descriptor."""
        return self.put_json(_index(manifests), OCI_INDEX, **more)

    def entries(self, *others: Entry) -> list[Entry]:
        """Give the members of the archive, with others among them, sorted by name."""
        rest = [
            Entry("index.json", json.dumps(_index(self.heads), indent=1).encode()),
            json_entry("oci-layout", {"imageLayoutVersion": "1.0.0"}),
            *others,
        ]
        return [
            folder("blobs"),
            folder("blobs/sha256"),
            *self.blobs.values(),
            *sorted(rest, key=lambda entry: entry.name),
        ]


def _index(manifests: Iterable[Any]) -> Any:
    listed = [*manifests]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}


def named(tag: str) -> dict[str, str]:
    """Give the annotations that docker and containerd give an image of this name."""
    return {
        "io.containerd.image.name": f"docker.io/library/{tag}",
        "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
    }


def docker_save_26(*recipes: Recipe) -> list[Entry]:
    """Lay out as docker since 25: an OCI layout with a manifest.json in it."""
    layout = Layout()
    listed = []
    for recipe in recipes:
        head = layout.image(recipe)
        layers = [f"blobs/sha256/{one.hex}" for one in recipe.layers]
        config = sha256_hex(recipe.config(separators=(",", ":")))
        listed.append(manifest_entry(recipe, f"blobs/sha256/{config}", layers))
        layout.heads += [
            {**head, "annotations": named(tag)} for tag in recipe.tags or ()
        ] or [head]
        layout.put(b'{"id":"%s"}' % config.encode(), "")  # the legacy config
    return layout.entries(
        json_entry("manifest.json", listed),
        json_entry("repositories", {"hello": {"2.12": "0" * 64}}),
    )


def podman_save(*recipes: Recipe) -> list[Entry]:
    """Lay out as podman and skopeo: ``<sha>.tar``, and links to it of mode 0."""
    files: dict[str, Entry] = {}
    legacy: list[Entry] = []
    listed = []
    for recipe in recipes:
        config = recipe.config(separators=(",", ":"))
        config_name = f"{sha256_hex(config)}.json"
        names = [f"{one.hex}.tar" for one in recipe.layers]
        for number, one in enumerate(recipe.layers):
            files[names[number]] = Entry(names[number], one.blob)
            ident = sha256_hex(f"{config_name}/{number}".encode())
            link = symlink(f"{ident}/layer.tar", f"../{names[number]}", mode=0)
            legacy += [link, *_legacy(ident)[1:]]
        files[config_name] = Entry(config_name, config)
        listed.append(manifest_entry(recipe, config_name, names))
    return [
        *files.values(),
        *legacy,
        json_entry("manifest.json", listed),
        json_entry("repositories", {"localhost/hello": {"2.12": "0" * 64}}),
    ]


def hard_linked(*recipes: Recipe) -> list[Entry]:
    """Lay out as GNU tar packs a folder of hard links: the second name is a link."""
    entries = build_layered_image(*recipes)
    copies = []
    for entry in entries:
        if entry.name.endswith("/layer.tar"):
            copies += [Entry(f"store/{entry.name}", entry.data)]
            copies += [hard_link(entry.name, f"store/{entry.name}")]
        else:
            copies.append(entry)
    return copies


def oci_archive(*recipes: Recipe) -> list[Entry]:
    """Lay out as ``skopeo copy oci-archive:``, which has no manifest.json."""
    layout = Layout()
    for recipe in recipes:
        for tag in recipe.tags or (None,):
            notes = {"org.opencontainers.image.ref.name": tag}
            layout.heads.append(
                layout.image(recipe, **({"annotations": notes} if tag else {}))
            )
    return layout.entries()


def write_folder(entries: Iterable[Entry], target: Path) -> None:
    """Unpack the folders and files of an archive into a directory."""
    for entry in entries:
        path = target / entry.name
        if entry.type == tarfile.DIRTYPE:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_bytes(entry.data)


#: The layouts that a docker-archive may have, by the tool that writes them.
WRITERS: dict[str, Callable[..., list[Entry]]] = {
    "buildImage": build_image,
    "buildImage-from-pulled": build_image_from_pulled,
    "buildLayeredImage": build_layered_image,
    "docker-20": docker_save_20,
    "docker-26": docker_save_26,
    "podman": podman_save,
    "hard-links": hard_linked,
}


def _legacy(ident: str) -> list[Entry]:
    return [
        folder(ident),
        Entry(f"{ident}/VERSION", b"1.0"),
        json_entry(f"{ident}/json", {"id": ident}),
    ]
