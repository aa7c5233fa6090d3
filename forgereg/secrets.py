"""
Read the files with secrets that settings name.
"""

from __future__ import annotations

from attrs import field, frozen

from forgereg.config import Settings
from forgereg.nix.tokens import read_token

#: How long a secret may be, in characters.
_MAX_SECRET = 8192


@frozen
class Secrets:
    """What the files hold that settings name; None where there is none."""

    admin_token: str | None = field(default=None, repr=False)
    hook_secret: str | None = field(default=None, repr=False)


def read_secrets(settings: Settings) -> Secrets:
    """
    Read the files that settings name. Blocking.

    :raises ValueError: one cannot be read, or is empty; the text names it.
    """
    for path in (settings.token_file, *(each.token_file for each in settings.flakes)):
        if path:
            read_token(path)
    return Secrets(
        read_secret(settings.admin_token_file), read_secret(settings.hook_secret_file)
    )


def read_secret(path: str) -> str | None:
    """
    Read a file with one secret; there is none where no path is given. Blocking.

    :raises ValueError: it cannot be read, or is empty; the text names it.
    """
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_SECRET + 1).decode().strip()
    except OSError as e:
        raise ValueError(f"the file {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ValueError(f"the file {path} is not text") from e
    if not text or len(text) > _MAX_SECRET:
        raise ValueError(f"the file {path} must hold 1 to {_MAX_SECRET} characters")
    return text
