"""A whole registry in memory: only nix, threads, time and sockets are played."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field
from twisted.internet.task import Clock

from forgereg.assembly import Assembly
from forgereg.blobs.store import BlobStore
from forgereg.config import Settings, defaults, read_settings
from forgereg.flow.builds import Builds
from forgereg.flow.registry import Registry
from forgereg.machine import Machine
from forgereg.oci.media import MANIFESTS
from forgereg.parts import Parts
from forgereg.records.records import Records
from forgereg.secrets import read_secrets
from forgereg.traces import NoTraces, Tracer
from forgereg.web.api import Api
from forgereg.web.site import RegistrySite
from tests.archives import Recipe, build_layered_image, gz, layer, tar
from tests.client import Answer, Connection, Headers, ask
from tests.doubles import (
    Output,
    Package,
    ScriptedNix,
    ScriptedScripts,
    Threads,
    store_path,
)

TTL_SECONDS = 300.0
TIMEOUT_SECONDS = 3600.0
#: The wall clock when a test begins, in seconds since the epoch.
BEGIN = 1_700_000_000.0

HELLO = Recipe((layer("lower"), layer("upper", gz)))
ANY_FORM: Headers = tuple(("Accept", form) for form in MANIFESTS)


def archive(*recipes: Recipe) -> bytes:
    """Write images as one compressed archive, as dockerTools does."""
    return gz(tar(build_layered_image(*recipes)))


@define
class FakeStore:
    """
    A Nix store of files below another root.

    :ivar root: below which ``nix/store`` lies.
    """

    root: Path

    def real(self, path: str) -> Path:
        """Say where a path of the store really lies."""
        return self.root / path.lstrip("/")

    def write(self, path: str, data: bytes) -> None:
        """Put a file into the store, in place of what is there."""
        self.real(path).parent.mkdir(parents=True, exist_ok=True)
        self.real(path).write_bytes(data)

    def link(self, path: str, target: str) -> None:
        """Put a link into the store, in place of what is there."""
        self.real(path).parent.mkdir(parents=True, exist_ok=True)
        self.real(path).unlink(missing_ok=True)
        self.real(path).symlink_to(target)

    def file(self, name: str, data: bytes, salt: str = "") -> Output:
        """Give what builds a file."""
        path = store_path(name, salt)
        return Output(
            path, lambda: self.write(path, data), store_path(f"{name}.drv", salt)
        )

    def folder(self, name: str, entries: Mapping[str, bytes | str | Output]) -> Output:
        """
        Give what builds a directory.

        :param entries: bytes of files, targets of links, and what is to be built and
            linked to, as linkFarm does.
        """
        path = store_path(name)

        def make() -> None:
            self.real(path).mkdir(parents=True, exist_ok=True)
            for entry, content in entries.items():
                if isinstance(content, bytes):
                    self.write(f"{path}/{entry}", content)
                elif isinstance(content, str):
                    self.link(f"{path}/{entry}", content)
                else:
                    content.make()
                    self.link(f"{path}/{entry}", content.path)

        return Output(path, make, store_path(f"{name}.drv"))

    def package(self, version: str | None, *recipes: Recipe, name: str) -> Package:
        """Give a package whose image is one archive of these images."""
        image = self.file(f"docker-image-{name}.tar.gz", archive(*recipes))
        return Package(version, {"image": image})


@define(repr=False)
class Served:
    """
    A registry and all it stands on.

    :ivar state: its directory.
    :ivar clock: its time: it stands still unless a test lets it run.
    """

    state: Path
    store: FakeStore
    database: str = "sqlite://"
    changes: Mapping[str, Any] = field(factory=dict)
    clock: Clock = field(factory=Clock)
    nix: ScriptedNix = field(factory=ScriptedNix)
    scripts: ScriptedScripts = field(factory=ScriptedScripts)
    threads: Threads = field(factory=Threads)
    readers: Threads = field(factory=Threads)
    tracer: Tracer = field(factory=NoTraces)
    records: Records = field(init=False)
    blobs: BlobStore = field(init=False)
    assembly: Assembly = field(init=False)
    builds: Builds = field(init=False)
    registry: Registry = field(init=False)
    api: Api = field(init=False)
    site: RegistrySite = field(init=False)
    _ids: count[int] = field(init=False, factory=lambda: count(1))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("Served(…)")  # hypothesis would print all of it

    @property
    def settings(self) -> Settings:
        """What an operator has set."""
        settings = read_settings({}, {}, defaults({}, "/home/x", "x86_64"))
        changes = {"flake": self.nix.flake, "system": self.nix.system, **self.changes}
        return attrs.evolve(settings, store=str(self.store.root), **changes)

    def set(self, **changes: Any) -> list[str]:
        """Change settings while it runs; give what needs a restart."""
        self.changes = {**self.changes, **changes}
        return self.assembly.apply(self.settings, read_secrets(self.settings))

    @classmethod
    def below(
        cls,
        folder: Path,
        nix: ScriptedNix | None = None,
        database: str = "sqlite://",
        tracer: Tracer | None = None,
        **settings: Any,
    ) -> Served:
        """Start a registry whose files are all in one directory."""
        served = cls(
            folder / "state",
            FakeStore(folder / "store"),
            database,
            settings,
            nix=nix or ScriptedNix(),
            tracer=tracer or NoTraces(),
        )
        (served.state / "roots").mkdir(parents=True)
        served.start()
        return served

    def start(self) -> None:
        """Put the registry together, as `forgereg.tap` does."""
        self.records = Records.open(self.database)
        self.blobs = BlobStore(self.state)
        self.blobs.prepare()
        machine = Machine(
            self.state,
            self.blobs,
            self.nix,
            self.scripts,
            {},
            self.clock,
            lambda: BEGIN + self.clock.seconds(),
            lambda: f"id-{next(self._ids)}",
            self.threads,
            self.readers,
            self.readers,
            tracer=self.tracer,
        )
        settings = self.settings
        secrets = read_secrets(settings)
        self.assembly = Assembly(Parts(settings, machine, self.records), secrets)
        self.builds = self.assembly.parts.builds
        self.registry = self.assembly.parts.registry
        self.api = self.assembly.entrance.api
        self.site = self.assembly.entrance.site
        self.site.reactor = self.clock
        self.site.doStart()

    def stop(self) -> None:
        """Let go of what is open."""
        self.site.doStop()
        self.records.close()

    def restart(self) -> None:
        """Stop, and start again on the same files with nothing in memory."""
        self.stop()
        self.start()

    def connect(self) -> Connection:
        """Open a connection."""
        return Connection.to(self.site)

    def begin(self, target: str, headers: Headers = ()) -> Connection:
        """Begin a GET over a connection of its own."""
        connection = self.connect()
        connection.ask("GET", target, headers)
        return connection

    def get(self, target: str, headers: Headers = ()) -> Answer:
        """GET, and read the answer."""
        return ask(self.site, "GET", target, headers)

    def head(self, target: str, headers: Headers = ()) -> Answer:
        """HEAD, and read the answer."""
        return ask(self.site, "HEAD", target, headers)

    def digests(self, name: str, tag: str = "latest") -> list[str]:
        """Pull an image; give the digests of its manifest, config and layers."""
        manifest = self.pull(name, tag)
        answer = self.head(f"/v2/{name}/manifests/{tag}", ANY_FORM)
        digest = answer["Docker-Content-Digest"]
        assert digest is not None
        blobs = [manifest["config"], *manifest["layers"]]
        return [digest, *(blob["digest"] for blob in blobs)]

    def pull(self, name: str, reference: str = "latest") -> Any:
        """
        Pull an image as clients do, checking every digest.

        :returns: its manifest, as JSON.
        """
        answer = self.get(f"/v2/{name}/manifests/{reference}", ANY_FORM)
        assert answer.status == 200, answer.body
        assert answer["Docker-Content-Digest"] == digest_of(answer.body)
        manifest = answer.json
        for blob in [manifest["config"], *manifest["layers"]]:
            got = self.get(f"/v2/{name}/blobs/{blob['digest']}")
            assert got.status == 200, got.body
            assert len(got.body) == blob["size"]
            assert digest_of(got.body) == blob["digest"]
        return manifest


def digest_of(data: bytes) -> str:
    """Write the digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def files_open_below(folder: Path) -> list[str]:
    """List the files below a directory that this process has open."""
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # of the listing itself
            opened.append(str(link.readlink()))
    return [path for path in opened if path.startswith(f"{folder}/")]


def files_below(path: Path) -> int:
    """Count the files below a directory."""
    return sum(each.is_file() for each in path.rglob("*"))


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Served]:
    """Start a registry with one package, and stop it at the end."""
    served = Served.below(folder, **settings)
    served.nix.packages["hello"] = served.store.package("2.12", HELLO, name="hello")
    yield served
    served.stop()
