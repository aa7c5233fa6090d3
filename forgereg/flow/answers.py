"""
What nix says about locked flakes, asked once for all who wait for it.

An answer is remembered for ever where the flake is all that it depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field

from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.once import Once
from forgereg.flow.policy import Policy
from forgereg.flow.report import State
from forgereg.flow.slots import Slots
from forgereg.flow.threads import InThread, note
from forgereg.metrics import Metrics, timed
from forgereg.nix.build import Nix
from forgereg.nix.flake import is_pure
from forgereg.records.records import Records


@define(eq=False)
class Answers:
    """
    The answers to questions in nix's language.

    :ivar system: for which nix evaluates.
    :ivar ready: gives nix, with the access token as its file has it now.
    :ivar evaluations: how many may run at a time.
    :ivar now: gives seconds since the epoch.
    """

    _system: str
    _ready: Callable[[], Coroutine[Any, Any, Nix]]
    _records: Records
    _policy: Policy
    _failures: Failures
    _evaluations: Slots
    _now: Callable[[], float]
    _in_thread: InThread
    _metrics: Metrics
    _asking: Once[tuple[str, str], Any] = field(init=False, factory=Once)

    def key(self, query: str) -> str:
        """Give what an answer is remembered by, beside the locked ref."""
        return hashlib.sha256(f"{self._system}\n{query}".encode()).hexdigest()

    async def recall(self, locked: str, query: str) -> Any:
        """Give what is remembered, or None rather than ask nix."""
        key = self.key(query)

        def recall() -> Any:
            # There too, as a list of thousands takes its time to be read.
            known = self._records.answer(locked, key)
            return None if known is None else json.loads(known)

        return await self._in_thread(recall)

    async def ask(
        self, errand: Errand, locked: str, query: str, *, builds: bool = True
    ) -> Any:
        """
        Give what is remembered, or what nix says.

        :param builds: whether nix may build what it needs to know.
        :raises RegistryError: as `Nix.evaluate`.
        """
        key = (locked, self.key(query))

        async def ask() -> Any:
            known = await self._in_thread(self._records.answer, *key)
            self._metrics.cache("evaluation").count(known is not None)
            if known is not None:
                return json.loads(known)
            async with self._evaluations.turn(errand, State.EVALUATING):
                nix, limit = await self._ready(), self._policy.evaluation
                with timed(self._metrics.evaluation_seconds, self._now):
                    answer = await nix.evaluate(
                        errand, locked, query, builds=builds, limit=limit
                    )
            # What is not there is not remembered: anyone may ask for anything.
            is_there = not isinstance(answer, dict) or answer.get("status") == "ok"
            if is_there and is_pure(locked):
                remember, text = self._records.remember_answer, json.dumps(answer)
                await note(self._in_thread, remember, *key, text)
            return answer

        return await errand.share(
            lambda: self._asking.do(
                key, lambda: self._failures.mind(key, ask, errand.build_id)
            )
        )
