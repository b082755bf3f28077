"""A store that does what it is asked for later: what relays meet when a disk is behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sims.server.interfaces import (
    Account,
    Asked,
    Done,
    Facts,
    Invitation,
    Kept,
    Letter,
    Published,
    Quota,
    Registered,
)
from sims.server.memory import MemoryStore


class LateStore:
    """As :class:`~sims.server.interfaces.Store`; requests wait in order until :meth:`step` or :meth:`settle`.

    Its writer does the work at one time, and the answer comes at another: with what was asked for meanwhile between.

    :ivar stored: the store behind it.
    """

    crowded = False

    def __init__(self) -> None:
        self.stored = MemoryStore()
        self._asked: deque[tuple[Callable[..., None], tuple[Any, ...], Done[Any]]] = deque()
        self._answers: deque[tuple[Done[Any], Any]] = deque()

    @property
    def busy(self) -> bool:
        """Whether something waits."""
        return bool(self._asked or self._answers)

    def work(self) -> None:
        """Do the oldest of what was asked for."""
        if self._asked:
            request, args, done = self._asked.popleft()
            try:
                request(*args, lambda result: self._answers.append((done, result)))
            except RuntimeError:  # a fault, which a test has brought in
                if isinstance(done, Asked):
                    failed = done.failed
                    self._answers.append((lambda _: failed(), None))

    def answer(self) -> None:
        """Tell the oldest result."""
        if self._answers:
            done, result = self._answers.popleft()
            done(result)

    def settle(self) -> None:
        """Do everything, and what comes of it."""
        while self.busy:
            self.work()
            self.answer()

    def _later(self, request: Callable[..., None], *args: Any) -> None:
        *args_, done = args
        self._asked.append((request, tuple(args_), done))

    def find(self, account: str, done: Done[Account | None]) -> None:
        self._later(self.stored.find, account, done)

    def find_name(self, name: str, done: Done[Account | None]) -> None:
        self._later(self.stored.find_name, name, done)

    def register(self, account: Account, invitation: bytes | None, done: Done[Registered]) -> None:
        self._later(self.stored.register, account, invitation, done)

    def connected(self, account: str, epoch: int | None, done: Done[Account | None]) -> None:
        self._later(self.stored.connected, account, epoch, done)

    def everyone(self, done: Done[Sequence[Account]], most: int | None = None) -> None:
        self._later(lambda then: self.stored.everyone(then, most), done)

    def delete(self, account: str, done: Done[None]) -> None:
        self._later(self.stored.delete, account, done)

    def invite(self, invitation: bytes, done: Done[None], *, uses: int = 1, expires: int | None = None) -> None:
        self._later(partial(self.stored.invite, uses=uses, expires=expires), invitation, done)

    def invitation(self, invitation: bytes, done: Done[Invitation | None]) -> None:
        self._later(self.stored.invitation, invitation, done)

    def bundle(self, owner: str, done: Done[Published | None]) -> None:
        self._later(self.stored.bundle, owner, done)

    def publish(self, owner: str, bundle: Published, one_time_keys: Sequence[bytes], done: Done[bool]) -> None:
        self._later(self.stored.publish, owner, bundle, one_time_keys, done)

    def take(self, owner: str, fetcher: str, now: int, done: Done[bytes | None]) -> None:
        self._later(self.stored.take, owner, fetcher, now, done)

    def keep(self, letter: Letter, quota: Quota, now: int, done: Done[Kept]) -> None:
        self._later(self.stored.keep, letter, quota, now, done)

    def waiting(
        self, owner: str, after: int, most: int, since: float, done: Done[Sequence[tuple[int, Letter]]]
    ) -> None:
        self._later(self.stored.waiting, owner, after, most, since, done)

    def acknowledge(self, owner: str, letters: Sequence[tuple[str, bytes]], done: Done[None]) -> None:
        self._later(self.stored.acknowledge, owner, letters, done)

    def written(self, owner: str, to: str, done: Done[None]) -> None:
        self._later(self.stored.written, owner, to, done)

    def facts(self, account: str, done: Done[Facts]) -> None:
        self._later(self.stored.facts, account, done)

    def close(self, done: Done[None]) -> None:
        self._later(self.stored.close, done)
