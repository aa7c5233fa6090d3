"""Settings that are changed while the registry runs."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.daemon import Daemon, registry

FLAKE = "path:/nowhere"


def reload(running: Daemon, said: str) -> None:
    """Have the settings read again, and wait until something is said of it."""
    running.process.send_signal(signal.SIGHUP)
    running.wait_for(said)


def test_settings_are_read_again(tmp_path: Path) -> None:
    """After SIGHUP a new line in .env counts, and the registry has not been away."""
    env = tmp_path / ".env"
    env.write_text("MAX_TAG_LENGTH=100\n")
    with registry(tmp_path, FLAKE) as running:
        assert " debug" not in running.logged()
        env.write_text("FORGE_MAX_QUEUE=0\nFORGE_MAX_BILDS=1\n")
        reload(running, "the settings have been read again")
        running.wait_for("needs a restart to take effect: MAX_TAG_LENGTH")
        meant = "did you mean FORGE_MAX_BUILDS?"
        running.wait_for(f"FORGE_MAX_BILDS is no setting; {meant}")
        assert running.ask("/v2/").status == 200


def test_nonsense_changes_nothing(tmp_path: Path) -> None:
    """Nonsense in .env is said to be, and the registry goes on as it was."""
    with registry(tmp_path, FLAKE) as running:
        for line in ("FORGE_MAX_BUILDS=many", "FORGE_ADMIN_TOKEN_FILE=/nothing/here"):
            (tmp_path / ".env").write_text(f"{line}\n")
            reload(running, line.partition("=")[2])
            running.wait_for("the settings stay as they were")
            assert running.ask("/v2/").status == 200


def test_an_administrator_gets_a_token(tmp_path: Path) -> None:
    """A token that is set while the registry runs opens what was closed."""
    (tmp_path / "token").write_text("open sesame\n")
    with registry(tmp_path, FLAKE) as running:
        shown = {"Authorization": "Bearer open sesame"}
        assert not running.ask("/-/api/builds", **shown).json["may_change"]
        (tmp_path / ".env").write_text(f"FORGE_ADMIN_TOKEN_FILE={tmp_path}/token\n")
        reload(running, "the settings have been read again")
        assert running.ask("/-/api/builds", **shown).json["may_change"]
