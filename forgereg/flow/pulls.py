"""
Note what is pulled, in memory first: a pull never waits for the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.oci.errors import DiskFull
from forgereg.oci.reference import Digest, Name, Tag
from forgereg.records.pulls import Pull

_log = logger(__name__)

#: How long pulls are gathered before they are written down, in seconds.
_GATHER_SECONDS = 10.0

_Key = tuple[Name, Digest, Tag | None]


@define
class PullLog:
    """
    When each manifest was pulled last, and how often.

    What is not written down stays in memory, once for each manifest and tag, and is
    tried again; a full disk is not in the way of a pull.

    :ivar note: writes pulls down; called in a thread, never twice at a time.
    :ivar now: gives seconds since the epoch.
    """

    _note: Callable[[Sequence[Pull]], None]
    _in_thread: InThread
    _clock: IReactorTime
    _now: Callable[[], float]
    _gathered: dict[_Key, Pull] = field(init=False, factory=dict)
    _leaving: dict[_Key, Pull] = field(init=False, factory=dict)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _lock: DeferredLock = field(init=False, factory=DeferredLock)

    def pulled(self, name: Name, digest: Digest, tag: Tag | None) -> None:
        """
        Note that a manifest was answered.

        :param tag: None where it was asked for by digest.
        """
        key = name, digest, tag
        before = self._gathered.get(key)
        count = 1 if before is None else before.count + 1
        self._gathered[key] = Pull(name, digest, tag, self._now(), count)
        self._wait()

    def unwritten(self) -> dict[tuple[Name, Digest], float]:
        """Give when manifests were pulled of which the records may not know yet."""
        pulls = (*self._leaving.values(), *self._gathered.values())
        latest: dict[tuple[Name, Digest], float] = {}
        for pull in pulls:
            key = pull.name, pull.digest
            latest[key] = max(pull.pulled_at, latest.get(key, pull.pulled_at))
        return latest

    def flush(self) -> Deferred[None]:
        """
        Write down what was gathered until now.

        :returns: fires when it is written, or cannot be; cancelling it is leaving.
        """
        flushed: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._write()).chainDeferred(flushed)
        return flushed

    async def _write(self) -> None:
        async with self._lock:
            self._rest()
            self._leaving, self._gathered = self._gathered, {}
            try:
                if self._leaving:
                    await self._in_thread(self._note, [*self._leaving.values()])
            except DiskFull as e:
                self._keep()
                _log.warn("pulls are not noted: {error}", error=e)
            except Exception:
                self._keep()
                _log.failure("pulls are not noted")
            self._leaving = {}
        if self._gathered:
            self._wait()

    def _keep(self) -> None:
        """Have what could not be written go with what came since."""
        for key, pull in self._gathered.items():
            before = self._leaving.get(key)
            count = pull.count + (before.count if before else 0)
            self._leaving[key] = evolve(pull, count=count)
        self._gathered = self._leaving

    def _wait(self) -> None:
        if self._timer is None and not self._lock.locked:
            self._timer = self._clock.callLater(_GATHER_SECONDS, self._due)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._write())
