"""
Write what was logged as text that is safe to show: on one line, bounded, without secrets.
Pure.
"""

from __future__ import annotations

import re

from twisted.logger import LogEvent, formatEvent

#: What follows ``//``, up to ``@``, and what follows a parameter that names a secret.
_SECRETS = re.compile(
    r"(//)[^/@\s'\"]+(?=@)"
    r"|([?&](?:[a-z]+_)?(?:token|password|secret|key|signature)=)[^&\s'\"]+"
    r"|(\bauthorization['\"]?: *['\"]?(?:(?:basic|bearer|token) +)?)[^\s'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Hide passwords and tokens that stand in URLs, such as a flake ref's."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}***", text)


def shown(text: str, most: int) -> str:
    """
    Write any text so that it neither leaves its line nor plays tricks on who reads it.

    What cannot be seen (control characters, what turns the direction of writing, halves
    of surrogate pairs) is written as in a Python string.

    :param most: how much of it is kept, in characters.
    """
    if len(text) > most:
        text = f"{text[:most]}… ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )


def message(event: LogEvent, most: int) -> str:
    """
    Write what an event says, with what went wrong, if that is known, but no traceback.

    :param most: how much of it is kept, in characters.
    """
    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}: {failure.type.__name__}: {failure.getErrorMessage()}"
    return shown(masked(text[: 2 * most]), most)
