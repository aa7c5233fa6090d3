"""
Read a ``Range`` header against a blob's size. Pure.

Source: RFC 9110, section 14.
"""

from __future__ import annotations

import re

from forgereg.oci.errors import RangeNotSatisfiable

#: One request may ask for as many stretches as clients that pull chunks do.
MAX_RANGES = 1024

_SET = re.compile(r"bytes=(.*)", re.IGNORECASE | re.DOTALL)
_STRETCH = re.compile(r"[ \t]*([0-9]*)-([0-9]*)[ \t]*")
#: More digits than any size has, and few enough for int() to read at once.
_MAX_DIGITS = 20


def parse_range(header: str, size: int) -> list[tuple[int, int]] | None:
    """
    Give the stretches that a ``Range`` header asks for.

    Ends past the end are clamped, stretches that begin there are dropped.

    :param size: of the blob, in bytes.
    :returns: half-open ``(start, stop)`` within ``[0, size)``, in the order asked
        for; None where the header is to be ignored: another unit, not of the
        grammar, or more bytes in all than the blob has.
    :raises RangeNotSatisfiable: nothing of what is asked for is there.
    """
    whole = _SET.fullmatch(header.strip(" \t"))
    if whole is None or whole[1].count(",") >= MAX_RANGES:
        return None
    stretches: list[tuple[int, int]] = []
    for part in whole[1].split(","):
        match = _STRETCH.fullmatch(part)
        if match is None or max(map(len, match.groups())) > _MAX_DIGITS:
            return None
        first, last = match.groups()
        if first:
            start, stop = int(first), int(last) + 1 if last else size
            if last and stop <= start:
                return None
        elif last:
            start, stop = max(0, size - int(last)), size
        else:
            return None
        if start < size and start < stop:
            stretches.append((start, min(stop, size)))
    if not stretches:
        raise RangeNotSatisfiable(f"the blob has {size} bytes")
    if sum(stop - start for start, stop in stretches) > size:
        return None
    return stretches
