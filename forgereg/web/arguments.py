"""
Read what the query of a request says.
"""

from __future__ import annotations

from twisted.web.server import Request

from forgereg.flow.report import State
from forgereg.oci.errors import RequestInvalid
from forgereg.oci.reference import shown

_MOST_DIGITS = 15


def is_given(request: Request, name: str) -> bool:
    """Say whether there is something under a name, be it empty."""
    return name.encode() in request.args


def word(request: Request, name: str) -> str:
    """Give what is said last under a name, without blanks around it; maybe nothing."""
    said: bytes = request.args.get(name.encode(), [b""])[-1]
    return said.decode("utf-8", "replace").strip()


def number(request: Request, name: str, default: int | None = None) -> int:
    """
    Give a whole number, 0 or more.

    :param default: where nothing is said; None where something must be.
    :raises RequestInvalid: it is none.
    """
    text = word(request, name)
    if not text and default is not None:
        return default
    count = digits(text)
    if count is None:
        raise RequestInvalid(
            f"{name} is {shown(text)}; it must be a whole number, 0 or more"
        )
    return count


def digits(text: str) -> int | None:
    """Read a number of ASCII digits, and not too many; None where it is none."""
    is_one = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_one else None


def known_states(request: Request) -> frozenset[State]:
    """Give those of `states` that there are."""
    words = _state_words(request)
    return frozenset(state for state in State if state.value in words)


def _state_words(request: Request) -> set[str]:
    text = b",".join(request.args.get(b"state", ())).decode("utf-8", "replace")
    return {each.strip() for each in text.split(",")} - {""}


def states(request: Request) -> frozenset[State]:
    """
    Give the states of builds that are asked for, with commas between or one by one.

    :raises RequestInvalid: there is no such state.
    """
    words = _state_words(request)
    known = [state.value for state in State]
    for each in words.difference(known):
        raise RequestInvalid(
            f"{shown(each)} is no state of a build; those are {', '.join(known)}"
        )
    return frozenset(map(State, words))
