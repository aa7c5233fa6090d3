"""Settings for other programs, as the documentation has them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.daemon import ROOT


def documented(begin: str, changed: Mapping[str, str]) -> str:
    """
    Give what stands in docs/operations.md, for this machine.

    :param begin: what the block's fence, and perhaps first lines, begin with.
    :param changed: what is replaced by what; each is to be there, once.
    """
    page = (ROOT / "docs" / "operations.md").read_text()
    blocks = re.findall(r"^```(\w+\n.*?)^```$", page, re.M | re.S)
    (block,) = (block for block in blocks if block.startswith(begin))
    text = block.partition("\n")[2]
    for old, new in changed.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return str(text)
