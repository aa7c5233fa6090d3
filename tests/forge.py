"""A forge on the loopback: git repositories that are private, served over HTTP."""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from attrs import define

_AUTHOR = {
    f"GIT_{who}_{what}": "nobody"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


def run(
    argv: Sequence[str], env: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run something to its end; nobody answers its questions."""
    return subprocess.run(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False, start_new_session=True,
    )  # fmt: skip


def clean(home: Path) -> dict[str, str]:
    """Give an environment in which nobody has configured git."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


@define
class Repository:
    """
    A git repository with a branch ``main``, whose commits are flakes.

    :ivar bare: its copy that has no work tree, and can be served.
    """

    root: Path

    def git(self, *words: str) -> str:
        """Run git in it, and give what it prints."""
        ended = run(["git", *words], {**clean(self.root.parent), **_AUTHOR}, self.root)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def commit(self, text: str) -> str:
        """Commit a flake that says a text; give its revision."""
        flake = f'{{ outputs = _: {{ text = "{text}"; }}; }}\n'
        (self.root / "flake.nix").write_text(flake)
        return self.commit_all(text)

    def commit_all(self, message: str) -> str:
        """Commit what is in the work tree; give its revision."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    @property
    def bare(self) -> Path:
        return self.root.with_suffix(".git")

    def publish(self) -> None:
        """Make its bare copy, so that a server of mere files will do."""
        self.git("clone", "--quiet", "--mirror", ".", str(self.bare))
        self.git("--git-dir", str(self.bare), "update-server-info")

    def push(self) -> None:
        """Give its bare copy all that is new, or no longer there."""
        self.git("push", "--quiet", "--mirror", str(self.bare))


def repository(root: Path) -> Repository:
    """Make an empty repository."""
    root.mkdir()
    made = Repository(root)
    made.git("init", "--quiet", "--initial-branch", "main")
    return made


class _Private(SimpleHTTPRequestHandler):
    user = ""

    def do_GET(self) -> None:  # noqa: N802
        word = b64encode(self.user.encode()).decode()
        if self.headers.get_all("Authorization") == [f"Basic {word}"]:
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="forge"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(root: Path, user: str) -> Iterator[str]:
    """
    Serve a directory to one user, who is ``name:password``.

    :returns: the server's URL, without a slash at its end.
    """
    handler = type("Handler", (_Private,), {"user": user})
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(root))
    ) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
