"""What is asked of the store in SQLite, in whichever thread: it waits in a queue for the thread that does it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import msgspec

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
from sims.server.sqlite_known import Known

T = TypeVar("T")

#: Bytes of what waits to be done before messages are refused; and twice as many before nobody should ask for more.
MAX_QUEUED = 64 * 1024 * 1024
#: Bytes that each request counts, beside what it says: what it takes up in memory, generously; and one that holds a
#: connection, which may be gone by the time of the answer.
EACH, OF_A_CONNECTION = 1024, 16 * 1024


class Request(msgspec.Struct, frozen=True):
    """What is asked for: a method of :class:`Tables`, or ``no_room`` or ``close``.

    :ivar told: of a message: how many refusals had been told when it was asked for.
    :ivar size: bytes that it counts while it waits.
    """

    name: str
    args: tuple[Any, ...]
    done: Done[Any]
    told: int = 0
    size: int = EACH

    def __repr__(self) -> str:
        return f"<request {self.name}>"


class Refusals:
    """Refusals of messages for want of room, counted where they are made and where they are told.

    Until one is told, its sender goes on: what he sends to the same recipient meanwhile must not be kept, though there
    be room again, or else it is kept before what he will send again. A message that is refused for that is one of them.

    :ivar made: how many; ``told``: how many of them were told.
    """

    def __init__(self) -> None:
        self.made = self.told = 0
        # By sender and recipient, in the order of the numbers. Not a dict: to find its first, it looks at all that were
        # deleted before that.
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        """How many senders and recipients there are between whom something may have to be refused."""
        return len(self._last)

    def add(self, request: Request) -> Kept:
        """One more; gives the answer to it."""
        self._forget(request.told)
        pair = request.args[0][:2]
        self.made += 1
        self._last.pop(pair, None)
        self._last[pair] = self.made
        return Kept.UNAVAILABLE

    def stop(self, request: Request) -> bool:
        """Whether a message is to be refused because one before it was. To be asked in the order of the requests."""
        self._forget(request.told)
        return request.args[0][:2] in self._last

    def _forget(self, told: int) -> None:
        """Forget those that were told before something was asked for, and so before all that comes."""
        while self._last and next(iter(self._last.values())) <= told:
            self._last.popitem(last=False)


class Requests:
    """The half of the store that others see, but for its beginning.

    :ivar refusals: those of messages.
    :ivar known: what need not be asked for, if there is nothing that was asked for and not answered.
    """

    def __init__(self) -> None:
        self.refusals = Refusals()
        self.known = Known()
        self._unanswered = 0
        self._queue: SimpleQueue[Request] = SimpleQueue()
        self._closing = False
        self._put = self._taken = 0  # bytes of requests; the one is counted here, the other in the thread

    @property
    def crowded(self) -> bool:
        """As :class:`~sims.server.interfaces.Store` has it."""
        return self._put - self._taken > 2 * MAX_QUEUED

    def _ask(self, name: str, done: Done[Any], *args: Any, size: int = EACH) -> None:
        if not self._closing:
            self._put += size
            self._unanswered += 1
            self._queue.put(Request(name, args, done, self.refusals.told, size))

    def find(self, account: str, done: Done[Account | None]) -> None:
        self._ask("find", done, account)

    def find_name(self, name: str, done: Done[Account | None]) -> None:
        self._ask("find_name", done, name)

    def register(self, account: Account, invitation: bytes | None, done: Done[Registered]) -> None:
        self._ask("register", done, account, invitation, size=OF_A_CONNECTION)

    def connected(self, account: str, epoch: int | None, done: Done[Account | None]) -> None:
        found = None if self._unanswered or self._closing else self.known.account(account, epoch)
        if found is not None:
            done(found)
            return
        self.known.ask_account(account)
        first = partial(self.known.learn_account, account, epoch=epoch)
        self._ask("connected", _after(first, done), account, epoch, size=OF_A_CONNECTION)

    def everyone(self, done: Done[Sequence[Account]], most: int | None = None) -> None:
        self._ask("everyone", done, most)

    def delete(self, account: str, done: Done[None]) -> None:
        self.known.forget_account(account)
        self._ask("delete", done, account)

    def invite(self, invitation: bytes, done: Done[None], *, uses: int = 1, expires: int | None = None) -> None:
        self._ask("invite", done, invitation, uses, expires)

    def invitation(self, invitation: bytes, done: Done[Invitation | None]) -> None:
        self._ask("invitation", done, invitation)

    def bundle(self, owner: str, done: Done[Published | None]) -> None:
        self._ask("bundle", done, owner)

    def publish(self, owner: str, bundle: Published, one_time_keys: Sequence[bytes], done: Done[bool]) -> None:
        size = len(bundle.raw) + sum([len(key) for key in one_time_keys])
        self._ask("publish", done, owner, bundle, one_time_keys, size=EACH + size)

    def take(self, owner: str, fetcher: str, now: int, done: Done[bytes | None]) -> None:
        self._ask("take", done, owner, fetcher, now)

    def keep(self, letter: Letter, quota: Quota, now: int, done: Done[Kept]) -> None:
        self.known.fill(letter.dst)
        size = EACH + len(letter.inner)
        if self._put + size - self._taken > MAX_QUEUED:
            # The answer still comes in its turn; and until then ``done`` may have what the message says.
            self._ask("no_room", done, letter._replace(inner=b""), size=size)
        else:
            self._ask("keep", done, letter, quota, now, size=size)

    def waiting(
        self, owner: str, after: int, most: int, since: float, done: Done[Sequence[tuple[int, Letter]]]
    ) -> None:
        if after:
            self._ask("waiting", done, owner, after, most, since)
        elif self.known.is_empty(owner) and not self._unanswered and not self._closing:
            done(())
        else:
            self.known.ask_box(owner)
            first = partial(self.known.learn_box, owner)
            self._ask("waiting", _after(first, done), owner, after, most, since)

    def acknowledge(self, owner: str, letters: Sequence[tuple[str, bytes]], done: Done[None]) -> None:
        self._ask("acknowledge", done, owner, letters)

    def written(self, owner: str, to: str, done: Done[None]) -> None:
        self._ask("written", done, owner, to)

    def facts(self, account: str, done: Done[Facts]) -> None:
        self._ask("facts", done, account)

    def close(self, done: Done[None]) -> None:
        self._ask("close", done)
        self._closing = True


def _after(first: Done[T], done: Done[T]) -> Done[T]:
    """A ``done`` behind something else that is told the result."""

    def both(result: T) -> None:
        first(result)
        done(result)

    return Asked(both, done.failed) if isinstance(done, Asked) else both
