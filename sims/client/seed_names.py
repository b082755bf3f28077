"""Who goes by which name on a server of the seed: what the last list said, and the commands that wait for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from sims import messages, wire
from sims.client.events import Contact
from sims.errors import Code, LocalError, PeerError, SimsError

Found = Callable[[int], None]
Failed = Callable[[SimsError], None]
Ref = str | int | None


class _Waiting(NamedTuple):
    """A command whose recipient is a name that was not in the list when it came."""

    to: str
    found: Found
    failed: Failed
    serial: int  # of the list that decides


class Request(NamedTuple):
    """A list request under way; ``asked`` if it is the user's."""

    ref: Ref
    asked: bool


class Names:
    """The list, and who waits for it. ``request`` sends a list request."""

    def __init__(self, own_id: int, request: Callable[[], None]) -> None:
        self._own_id = own_id
        self._request = request
        self._names: dict[int, str] = {}
        self._requests: deque[Request] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._requested = 0
        self._received = 0

    @property
    def under_way(self) -> int:
        """How many of the user's requests and commands wait for a list."""
        return sum(1 for request in self._requests if request.asked) + len(self._waiting)

    @property
    def waiting(self) -> int:
        """How many commands wait for a list."""
        return len(self._waiting)

    def ask(self, ref: Ref = None, *, asked: bool = False) -> None:
        """Send a list request."""
        self._requests.append(Request(ref, asked))
        self._requested += 1
        self._request()

    def learn(self, member_id: int) -> None:
        """See to it that the name of an id is known soon, if anybody knows it."""
        if member_id not in self._names and not self._requests:
            self.ask()

    def forget(self, member_id: int) -> None:
        """The id is not connected any more."""
        self._names.pop(member_id, None)

    def lost(self) -> list[Ref]:
        """The connection is gone, and with it the requests; commands go on waiting, for the first list of the next.

        :returns: the refs of the user's requests, to be made again.
        """
        refs = [request.ref for request in self._requests if request.asked]
        self._requests.clear()
        self._requested = self._received = 0
        self._waiting = deque(waiting._replace(serial=1) for waiting in self._waiting)
        return refs

    def received(self, reply: messages.ListReply) -> Request:
        """Take in a list; gives the request that it answers."""
        self._names = {entry.id: entry.name for entry in reply.data}
        request = Request(None, False)
        if self._requests:  # a server may send one that nobody asked for
            request = self._requests.popleft()
            self._received += 1
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            if self._resolved(waiting) is False:
                self._waiting.append(waiting)
        return request

    def contact(self, member_id: int) -> Contact:
        """The id and the name, as far as it is known."""
        return Contact(str(member_id), self._names.get(member_id, ""))

    def contact_of(self, to: str) -> Contact:
        """Whom ``to`` means, as far as is known now."""
        found = self._find(to)
        return Contact("", to) if found is None else self.contact(found)

    def resolve(self, to: str, found: Found, failed: Failed) -> None:
        """Call ``found`` with the id that ``to`` is or names, after a fresh list if need be, or ``failed``."""
        waiting = _Waiting(to, found, failed, self._requested + 1)
        if self._resolved(waiting) is False:
            self.ask()
            self._waiting.append(waiting)

    def _resolved(self, waiting: _Waiting) -> bool:
        member_id = self._find(waiting.to)
        if member_id == self._own_id:
            waiting.failed(LocalError(Code.UNKNOWN_RECIPIENT, "that is this client itself"))
        elif member_id is not None:
            waiting.found(member_id)
        elif self._received >= waiting.serial:
            several = sum(1 for name in self._names.values() if name == waiting.to) > 1
            text = "several clients go by this name: use the id" if several else "nobody of this name is connected"
            waiting.failed(LocalError(Code.UNKNOWN_RECIPIENT, text))
        else:
            return False
        return True

    def _find(self, to: str) -> int | None:
        try:
            return wire.as_id(to)
        except PeerError:
            ids = [member_id for member_id, name in self._names.items() if name == to]
            return ids[0] if len(ids) == 1 else None
