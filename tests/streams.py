"""The scripts of ``tests/flakes/streams`` in a store of the tests' own, without nix."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from attrs import define, field

from tests.archives import Recipe, build_layered_image, layer
from tests.daemon import ROOT
from tests.doubles import store_path

SCRIPTS = ROOT / "tests" / "flakes" / "streams" / "scripts"
HELLO = Recipe((layer("lower"), layer("upper")), tags=("hello:1.0",))


@define
class ScriptStore:
    """
    A Nix store with a shell, and with scripts that write the image `HELLO`.

    :ivar root: what stands before ``/nix/store`` where its files really lie.
    """

    root: Path
    _busybox: str = field(init=False)
    _head: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        paths = {name: store_path(name) for name in ("applets", "parts")}
        for name, path in paths.items():
            self.real(path).mkdir(parents=True)
            paths[name] = path
        for name, source in (
            ("lib", ROOT / "examples" / "forge" / "lib"),
            ("scripts", SCRIPTS),
        ):
            paths[name] = store_path(name)
            shutil.copytree(source, self.real(paths[name]))
        self._busybox = f"{store_path('busybox')}/busybox"
        self.real(self._busybox).parent.mkdir()
        shutil.copy("/bin/busybox", self.real(self._busybox))
        applets = subprocess.run(
            ["busybox", "--list"], capture_output=True, check=True, text=True
        ).stdout.split()
        for name in applets:
            (self.real(paths["applets"]) / name).symlink_to(self._busybox)
        for entry in build_layered_image(HELLO):
            if entry.data:
                part = self.real(paths["parts"]) / entry.name
                part.parent.mkdir(exist_ok=True)
                part.write_bytes(entry.data)
        settings = " ".join(
            f"{name}={path}" for name, path in paths.items() if name != "applets"
        )
        self._head = f"PATH={paths['applets']} {settings}\n. $scripts/archive\n"

    def real(self, path: str) -> Path:
        """Say where a store path really lies."""
        return self.root / path.lstrip("/")

    def script(self, name: str) -> str:
        """Put a script of the flake into the store, and give its path."""
        return self.write(name, f"{self._head}. $scripts/{name}\n")

    def write(self, name: str, text: str) -> str:
        """Put any shell script into the store, and give its path."""
        path = store_path(f"stream-{name}", text)
        self.real(path).write_text(f"#!{self._busybox} sh\n{text}")
        self.real(path).chmod(0o555)
        return path
