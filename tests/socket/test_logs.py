"""The log as twistd writes it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, eventually, registry

FLAKE = "path:/nowhere"


def objects(text: str) -> list[dict[str, Any]]:
    """Read a log in JSON: every line of it."""
    return [json.loads(line) for line in text.splitlines()]


def has_request(running: Daemon, name: str) -> bool:
    """Whether the access log has a request, as JSON."""
    read = objects(running.logged())
    return any(line.get("request_id") == name and "status" in line for line in read)


def test_json(tmp_path: Path) -> None:
    """With FORGE_LOG_FORMAT=json every line is an object, twistd's own as well."""
    with registry(tmp_path, FLAKE, FORGE_LOG_FORMAT="json") as running:
        assert running.ask("/v2/", X_Request_Id="mine").headers["x-request-id"]
        eventually(lambda: has_request(running, "mine"))
        running.wait_for("no image of path:/nowhere can be pulled")
        running.stop()
        read = objects(running.logged())
    assert all(
        {"time", "level", "namespace", "message"} <= line.keys() for line in read
    )
    said = [line["message"] for line in read]
    assert any("starting up" in text for text in said) and "Server Shut Down." in said


def test_the_format_changes_while_it_runs(tmp_path: Path) -> None:
    """After SIGHUP the log is written in another format, from one line to the next."""
    with registry(tmp_path, FLAKE) as running:
        (tmp_path / ".env").write_text("FORGE_LOG_FORMAT=json\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for('"message": "the settings have been read again"')
        assert running.logged().startswith("20")


def test_in_a_file(tmp_path: Path) -> None:
    """With --logfile the same lines go there."""
    log = tmp_path / "twistd.log"
    options = ("--logfile", str(log))
    with registry(tmp_path, FLAKE, twistd=options, FORGE_LOG_FORMAT="json") as running:
        running.ask("/v2/")
        eventually(lambda: '"GET /v2/ 200"' in log.read_text())
        assert running.logged() == ""
    assert objects(log.read_text())


def test_of_their_own(tmp_path: Path) -> None:
    """Who gives twistd a --logger has what that writes."""
    code = "import twisted.logger as t, sys\ndef own(): return t.jsonFileLogObserver(sys.stdout)\n"
    (tmp_path / "ownlog.py").write_text(code)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    own = ("--logger", "ownlog.own")
    with registry(tmp_path, FLAKE, twistd=own, PYTHONPATH=path) as running:
        running.ask("/v2/")
        running.wait_for('"log_format": "{access}"')
        assert "[forgereg" not in running.logged()
