"""Bundles that are asked for: one question at a time for each id or name, asked again after a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from sims.inner import Fetch, FetchData

#: Seconds: for an answer; between attempts, at first and at most; at most, where the server says when.
ANSWER_TIMEOUT = 15.0
RETRY_FIRST = 2.0
RETRY_MOST = 60.0
AFTER_MOST = 600.0
#: So many questions are out at once: a server lets everybody have so many a second.
MOST_OUT = 8


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
        self._quiet = 0.0  # until when nothing is asked: the server has said so

    def __repr__(self) -> str:
        return f"<{len(self._wanted)} lookups>"

    def __contains__(self, key: Key) -> bool:
        return key in self._wanted

    def __len__(self) -> int:
        return len(self._wanted)

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
        self._quiet = 0.0
        for wanted in self._wanted.values():
            wanted.mid = None
            wanted.when = self._clock()

    def answered(self, mid: bytes | None) -> Key | None:
        """What an answer is about: of this mid, or, where it names none, the oldest question."""
        if mid is None:
            mid = next(iter(self._by_mid), None)
        return None if mid is None else self._by_mid.get(mid)

    def later(self, key: Key, after: float | None = None) -> None:
        """The answer was no use: ask again, after a growing while, or when the server says."""
        wanted = self._wanted.get(key)
        if wanted is None:
            return
        self._take_back(wanted)
        if after is None:
            wanted.attempts += 1
            wanted.when = self._clock() + min(RETRY_MOST, RETRY_FIRST * 2 ** min(wanted.attempts - 1, 10))
        else:
            wanted.when = self._quiet = self._clock() + min(max(after, 0.1), AFTER_MOST)

    def tick(self) -> float | None:
        """Ask what is due; gives when to look again."""
        now = self._clock()
        if self._quiet > now:
            return self._quiet if self._wanted else None
        for key, wanted in list(self._wanted.items()):
            if wanted.when > now:
                continue
            if wanted.mid is not None:
                # No answer at all. Whatever comes for that question now is of no use.
                self._take_back(wanted)
            if len(self._by_mid) >= MOST_OUT:
                continue
            wanted.mid = self._random(16)
            wanted.when = now + ANSWER_TIMEOUT
            self._by_mid[wanted.mid] = key
            data = FetchData(id=key.what) if key.by == "id" else FetchData(name=key.what)
            self._ask(Fetch(mid=wanted.mid, data=data))
        # What is due and found no room is asked when an answer makes some.
        return min((wanted.when for wanted in self._wanted.values() if wanted.when > now), default=None)

    def _take_back(self, wanted: _Wanted) -> None:
        if wanted.mid is not None:
            self._by_mid.pop(wanted.mid, None)
            wanted.mid = None
