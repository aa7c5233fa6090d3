"""
Store paths with everything that a tar writer can get wrong, and the layers made of them.

``GOLDEN`` was made once with nix2container's own code (nix/tar.go, nix/graph.go and
nix/utils.go as of 2026, Go 1.19), which ran in a root that `make_store` had filled.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ZOO = f"/nix/store/{'0' * 32}-zoo"
APP = f"/nix/store/{'1' * 32}-app"
ALONE = f"/nix/store/{'2' * 32}-alone"
BIG = f"/nix/store/{'3' * 32}-big"
#: One more byte than a USTAR header can say.
BIG_BYTES = 2**33


def make_store(root: Path) -> None:
    """Fill the ``/nix/store`` below a root."""
    zoo, app = root / ZOO[1:], root / APP[1:]
    for top in (zoo, app):
        for folder in ("bin", "share/empty", "sticky"):
            (top / folder).mkdir(parents=True)
    for length in (99, 100, 101, 155, 156, 200):
        _name_of(zoo, length).write_bytes(b"x" * length)
    deep = zoo / ("d" * 120) / ("e" * 120) / ("f" * 60)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    (zoo / ("g" * 55)).mkdir()
    (zoo / ("g" * 55) / ("ü" * 20)).write_bytes(b"slash at the edge")
    (zoo / "größe").mkdir()
    (zoo / "größe/日本").write_bytes(b"unicode")
    (app / "größe").write_bytes(b"")
    (zoo / "line\nfeed").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(zoo) + b"/\xff\xfe")).write_bytes(b"no utf-8")
    for size in (0, 1, 511, 512, 513, 70000):
        (zoo / "share" / str(size)).write_bytes(bytes(n % 251 for n in range(size)))
    (zoo / "here").symlink_to("bin/hello")
    (zoo / "gone").symlink_to("/nix/store/" + "z" * 120)
    (zoo / "größer").symlink_to("größe/日本")
    for top, text in ((zoo, b"#!/bin/sh\n"), (app, b"#!/bin/app\n")):
        (top / "bin/hello").write_bytes(text)
        (top / "bin/hello").chmod(0o555)
        (top / "sticky").chmod(0o1777)
    (zoo / "bin/su").write_bytes(b"su")
    (zoo / "bin/su").chmod(0o6755)
    os.link(zoo / "bin/hello", zoo / "bin/hi")
    (zoo / "Case~nix~case~hack~1").mkdir()
    (zoo / "Case~nix~case~hack~1/file~nix~case~hack~12").write_bytes(b"hacked")
    (zoo / "Case~nix~case~hack~0").write_bytes(b"not hacked")
    (root / ALONE[1:]).write_bytes(b"a file in the store\n")
    for top in (zoo, app, root / ALONE[1:]):
        for path in (top, *top.rglob("*")):
            if not path.is_symlink() and path.stat().st_mode & 0o7000 == 0:
                is_run = path.stat().st_mode & 1
                path.chmod(0o755 if path.is_dir() else 0o555 if is_run else 0o444)


def make_big(root: Path) -> None:
    """Put a file of `BIG_BYTES` into the store that takes no room on the disk."""
    big = root / BIG[1:]
    big.parent.mkdir(parents=True)
    with big.open("wb") as file:
        file.truncate(BIG_BYTES)
    big.chmod(0o444)


def _name_of(top: Path, length: int) -> Path:
    """Give a file whose store path has so many bytes."""
    return top / ("n" * (length - len(ZOO) - 1))


def _rewritten(path: str, regex: str, repl: str) -> dict[str, Any]:
    return {"path": path, "options": {"rewrite": {"regex": regex, "repl": repl}}}


def _perm(regex: str, mode: str = "", **others: Any) -> dict[str, Any]:
    owners = {"uid": 0, "gid": 0, "uname": "", "gname": ""}
    return {"regex": regex, "mode": mode} | owners | others


def _permitted(*perms: dict[str, Any]) -> list[dict[str, Any]]:
    rewrite = {"regex": f"^{ZOO}", "repl": ""}
    return [{"path": ZOO, "options": {"rewrite": rewrite, "perms": list(perms)}}]


#: What a layer is made of, as nix2container's JSON says it.
LAYERS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"path": ZOO}],
    "several": [{"path": ZOO}, {"path": ALONE}, {"path": APP}],
    "root": [_rewritten(ZOO, f"^{ZOO}", "")],
    "merged": [_rewritten(ZOO, f"^{ZOO}/share", ""), _rewritten(APP, f"^{APP}", "/a")],
    "relative": [_rewritten(ZOO, "^/nix/store/[^/]*/", "")],
    "dots": [_rewritten(ZOO, "^/nix/store/[^/]+", "/../x/./y//z")],
    "up": [_rewritten(APP, "^/nix/store/[^/]+", "../up")],
    "groups": [
        _rewritten(
            APP, "^(/nix)/store/[^/]+-(?P<name>[a-z]+)(.*)$", "${1}/$name-x/$3$$$none${"
        )
    ],
    "letters": [_rewritten(APP, "l*", "<$0>")],
    "lazy": [_rewritten(APP, "(?i)(ELL|s)+?", "[$1x${1}]")],
    "modes": _permitted(
        _perm("/bin/", "0755"),
        _perm("^.*/share(/|$)", "0700", uid=1000, gid=100, uname="ann", gname="ann"),
        _perm("511$", " 2755x"),
        _perm(r"\.*here$", "0644"),
        _perm("sticky", orMode="0022"),
        _perm("/bin/su", orMode="4000", uid=7),
    ),
    "owners": _permitted(
        _perm("hello", uid=2**21, gid=2**40, uname="müller", gname="müller"),
        _perm("share", uid=-1, gid=-(2**60), uname="u" * 33, gname="u" * 33),
        _perm("dddd", uid=2097151, uname="n" * 32, gname="n" * 32),
    ),
    "gnu": _permitted(
        _perm("bin", "10000000"),
        _perm("here|gone|größer|dddd", "-1", uid=-2, gid=2**33),
        _perm("empty", "7777777"),
    ),
    "group": _permitted(_perm("bin", "0755", gname="users"), _perm("su", uname="root")),
}

GOLDEN = {
    "plain": "3c1c61542bf280de5737b09694e8dcd423f5b635bab5fc5c54efc3d8f0256051",
    "several": "87e5257c979be55691a875cfa3243896dd64ba4210dc1953811bd1447e301f32",
    "root": "2cea391784184ad0fa64969c5b502214b42226720f10a58769738efe52b61a6d",
    "merged": "fcdef53fc4877980ab5d47f9d4bc37f3d92b9b1fc390b1e5ff185470d6d119bf",
    "relative": "6b724585a022424094d1788d35db3993f8e2d4624adf04bdd41db94002a15ead",
    "dots": "2f1c0fa00adb3e7ded0b68c81e5c3f3f25f165729803f0ae37d28aad7bb5fc02",
    "up": "37c9048b1ed295db91c82225501fd8477008e3923d0b6f32b1937da29aec2855",
    "groups": "8f37e5dee1318aa77e0bdbc0a6e32799cf47c4072bdab947701c07689fd331f0",
    "letters": "c3420545a31304f6c45efdb09d84c89ca4175f073b1e8961dd9a1f84b64022b0",
    "lazy": "5990bee531df61305b386901e928b7c9e9f89c3fb7c3551521c85e986d15ecfd",
    "modes": "01e278a469fce2e6085a58a96fcff731d0919e08eef10331d452ed56ce5455e1",
    "owners": "22087ff45914d89706df6413df58e7ebab594e755dd591345d1c2dace9c099ad",
    "gnu": "b863fa2d1763ca6904048fb629a6ad6f30aed08bf02334bbebf9749fe31e3562",
    "group": "1eca4eed6dce5d8ec0d403f42f21cd3b39bf3ef375c294ecb5cfaa7a02aceefd",
}
#: The same by releases that named a group like the user, and kept the case hack.
OLD_GOLDEN = {
    "several": "fff20ba627bbf5d8827829e296244d244e719f0890cd4edb8c5c6aa476794253",
    "group": "f4cd9e113d40181a2061e407d5ec7046cd425161c40d5410a42a45f05700a2c2",
}
#: Of the first 4 KiB of a layer that is `BIG`.
BIG_GOLDEN = "8ce4ae3a7283c71d0c2d2d16e773c39a57aae2402e3e6bab110c7988cfe9a147"
