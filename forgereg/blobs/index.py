"""
Which entries a store has, and which of them was used longest ago. Pure.

It knows names and sizes, no files; whoever calls holds the store's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from attrs import define, field


@define
class _Use:
    """What happened to an entry since the start."""

    moment: int = 0
    count: int = 0


@define(eq=False)
class Index:
    """
    Entries in the order of their last use.

    A million of them take about 300 MB, so it holds strings and whole numbers, which the
    garbage collector passes over; only what was used since the start has more.

    :ivar bytes: of all entries.
    """

    bytes: int = field(init=False, default=0)
    _sizes: OrderedDict[str, int] = field(init=False, factory=OrderedDict)
    _uses: dict[str, _Use] = field(init=False, factory=dict)
    _moment: int = field(init=False, default=0)

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def moment(self) -> int:
        """Give the present moment: later than all uses before, earlier than those to come."""
        self._moment += 1
        return self._moment

    def put(self, name: str, size: int) -> None:
        """Have an entry, or have it in another size, as used now."""
        self.bytes += size - self._sizes.pop(name, 0)
        self._sizes[name] = size
        self._uses.setdefault(name, _Use()).moment = self.moment()

    def put_before(self, older: OrderedDict[str, int]) -> None:
        """
        Have entries that were used before all that are known; of both, the latter counts.

        :param older: sizes by name, the least recently used first; it is not copied.
        """
        for name, size in self._sizes.items():
            older.pop(name, None)
            older[name] = size
        self._sizes = older
        self.bytes = sum(older.values())

    def remove(self, name: str) -> None:
        """Have it no more; whoever uses it goes on."""
        self.bytes -= self._sizes.pop(name, 0)
        use = self._uses.get(name)
        if use is not None and not use.count:
            del self._uses[name]

    def pin(self, name: str, count: int = 1) -> None:
        """Let it not be chosen until it is unpinned as often, though it is not there yet."""
        self._uses.setdefault(name, _Use()).count += count

    def unpin(self, name: str) -> None:
        """Undo `pin` once."""
        use = self._uses[name]
        use.count -= 1
        if not use.count and name not in self._sizes:
            del self._uses[name]

    def choose(self, least: int, before: float = inf) -> tuple[list[str], int]:
        """
        Choose what to let go of: the least recently used that nobody uses now.

        :param least: how many bytes are wanted.
        :param before: a moment; what was used since then stays.
        :returns: names, and how many bytes they have, which may be too few.
        """
        chosen: list[str] = []
        found = 0
        for name, size in self._sizes.items():
            if found >= least:
                break
            use = self._uses.get(name)
            if use is not None:
                if use.moment > before:
                    break  # and so was all that follows
                if use.count:
                    continue
            chosen.append(name)
            found += size
        return chosen, found
