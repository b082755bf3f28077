"""Bundles that are asked for: one question at a time for each id or name, asked again after a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from sims.inner import Fetch, FetchData

#: Seconds: for an answer; between attempts, at first and at most.
ANSWER_TIMEOUT = 15.0
RETRY_FIRST = 2.0
RETRY_MOST = 60.0


class Key(NamedTuple):
    """Whose bundle."""

    by: Literal["id", "name"]
    what: str


class _Wanted:
    __slots__ = ("attempts", "mid", "when")

    def __init__(self, when: float) -> None:
        self.mid: bytes | None = None  # of the question that is out
        self.when = when  # when to ask, or to ask again
        self.attempts = 0


class Lookups:
    """What is wanted and not answered.

    :param ask: sends a fetch.
    """

    def __init__(
        self, ask: Callable[[Fetch], None], *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._random = random
        self._wanted: dict[Key, _Wanted] = {}
        self._by_mid: dict[bytes, Key] = {}

    def __repr__(self) -> str:
        return f"<{len(self._wanted)} lookups>"

    def __contains__(self, key: Key) -> bool:
        return key in self._wanted

    def want(self, key: Key) -> None:
        """This bundle is needed, as soon as it can be had."""
        self._wanted.setdefault(key, _Wanted(self._clock()))

    def forget(self, key: Key) -> None:
        """It is needed no more."""
        wanted = self._wanted.pop(key, None)
        if wanted is not None and wanted.mid is not None:
            self._by_mid.pop(wanted.mid, None)

    def lost(self) -> None:
        """The connection is gone, and the answers with it."""
        self._by_mid.clear()
        for wanted in self._wanted.values():
            wanted.mid = None
            wanted.when = self._clock()

    def answered(self, mid: bytes | None) -> Key | None:
        """What an answer is about: of this mid, or, where it names none, the oldest question."""
        if mid is None:
            mid = next(iter(self._by_mid), None)
        return None if mid is None else self._by_mid.get(mid)

    def later(self, key: Key, after: float | None = None) -> None:
        """The answer was no use: ask again, in so many seconds or after a growing while."""
        wanted = self._wanted.get(key)
        if wanted is None:
            return
        if wanted.mid is not None:
            self._by_mid.pop(wanted.mid, None)
            wanted.mid = None
        wanted.attempts += 1
        delay = min(RETRY_MOST, RETRY_FIRST * 2 ** (wanted.attempts - 1)) if after is None else after
        wanted.when = self._clock() + delay

    def tick(self) -> float | None:
        """Ask what is due; gives when to look again."""
        now = self._clock()
        for key, wanted in list(self._wanted.items()):
            if wanted.when > now:
                continue
            if wanted.mid is not None:
                self._by_mid.pop(wanted.mid, None)
            wanted.mid = self._random(16)
            wanted.when = now + ANSWER_TIMEOUT
            self._by_mid[wanted.mid] = key
            data = FetchData(id=key.what) if key.by == "id" else FetchData(name=key.what)
            self._ask(Fetch(mid=wanted.mid, data=data))
        return min((wanted.when for wanted in self._wanted.values()), default=None)
