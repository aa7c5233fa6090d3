"""
Find out whether the nix that is there can do what is needed. Blocking.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from subprocess import TimeoutExpired

from forgereg.lines import one_line
from forgereg.nix.events import parse_line
from forgereg.nix.flake import OLDEST, Command, parse_version
from forgereg.nix.process import ask_now, missing_wrappers

_OLDEST = ".".join(map(str, OLDEST))
_MAX_SAID = 500
#: What begins so is not why nix has failed.
_BESIDE = ("warning:", "(use '--show-trace'")


class NixUnfit(Exception):
    """Nix cannot do what is needed; the text says why, and what helps."""


def check_nix(command: Command, env: Mapping[str, str]) -> str:
    """
    Ask nix for its version, and for a trifle that needs flakes and the store.

    :returns: which nix it is, as it says.
    :raises NixUnfit: it is not there, too old, or does not work.
    """
    missing = []
    if shutil.which("nix", path=env.get("PATH")) is None:
        missing.append(f"nix not found on the PATH: install nix {_OLDEST} or newer")
    if wrappers := missing_wrappers():
        names = " and ".join(wrappers)
        missing.append(f"{names} not found on the PATH: install util-linux")
    if missing:
        raise NixUnfit("; ".join(missing))
    try:
        _, said, error = ask_now(["nix", "--version"], env)
        found = parse_version(said)
        if found is None:
            what = (said + error).strip()
            raise NixUnfit(f"'nix --version' says {what!r}, not which version it is")
        if found < OLDEST:
            raise NixUnfit(
                f"nix is {said.strip()!r}; {_OLDEST} or newer is needed: upgrade nix"
            )
        status, answer, error = ask_now(command.probe(), env)
    except TimeoutExpired as e:
        raise NixUnfit("nix does not work: 'nix --version' or 'nix eval' hangs") from e
    except OSError as e:
        raise NixUnfit(f"nix does not work: {e}") from e
    if status != 0:
        raise NixUnfit(f"nix does not work: {one_line(told(error), _MAX_SAID)}")
    if answer.strip() != "true":
        raise NixUnfit(
            f"{said.strip()} has no flakes: install a nix that was built with them"
        )
    return said.strip()


def told(error: str) -> str:
    """
    Write in one line what nix says is wrong on its standard error.

    Warnings, such as of each time that it tries again, are left out: most are not the
    cause, and the cause comes after them.
    """
    lines = filter(None, map(parse_line, error.encode().splitlines()))
    texts = [" ".join(line.text.split()) for line in lines]
    causes = [text for text in texts if not text.lower().startswith(_BESIDE)]
    return " ".join(dict.fromkeys(causes or texts))
