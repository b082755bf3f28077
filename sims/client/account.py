"""Our account at the server: what it keeps on us, and the end of it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UnsetType

from sims import inner
from sims.client.desk import Desk, Ref
from sims.client.events import About, AccountDeleted
from sims.errors import Code, LocalError


class Account:
    """Questions about the account that are not answered.

    :param send: sends a message that is not kept.
    """

    def __init__(self, desk: Desk, send: Callable[[inner.Inner], None], random: Callable[[int], bytes]) -> None:
        self._desk = desk
        self._send = send
        self._random = random
        self._asked: dict[bytes, Ref] = {}
        self._leaving: dict[bytes, Ref] = {}

    def __repr__(self) -> str:
        return f"<{len(self)} questions>"

    def __len__(self) -> int:
        return len(self._asked) + len(self._leaving)

    def about(self, ref: Ref) -> None:
        """Ask what the server keeps on us."""
        mid = self._random(16)
        self._asked[mid] = ref
        self._send(inner.AboutRequest(mid=mid))

    def delete(self, ref: Ref) -> None:
        """Have the server forget us.

        :raises LocalError: ``policy``: that was asked for before.
        """
        if self._leaving:
            raise LocalError(Code.POLICY, "the account is being deleted")
        mid = self._random(16)
        self._leaving[mid] = ref
        self._send(inner.Delete(mid=mid))

    def joined(self) -> None:
        """There is a new connection: whether the server has heard on the last that we leave, nobody knows."""
        for mid in self._leaving:
            self._send(inner.Delete(mid=mid))

    def lost(self) -> None:
        """The connection is gone, and the answers with it."""
        asked, self._asked = self._asked, {}
        for ref in asked.values():
            self._desk.problem(Code.UNAVAILABLE, "the connection was lost before the answer came", ref)

    def told(self, message: inner.AboutReply) -> None:
        """The server says what it keeps; where it does not say what it answers, the oldest question."""
        mid = next(iter(self._asked), None) if isinstance(message.mid, UnsetType) else message.mid
        if mid in self._asked:
            self._desk.events.append(About(facts=message.data.facts, ref=self._asked.pop(mid)))

    def deleted(self, mid: bytes) -> bool:
        """The server has done what came under this mid: whether that was the end of the account."""
        if mid not in self._leaving:
            return False
        self._desk.events.append(AccountDeleted(ref=self._leaving.pop(mid)))
        return True

    def refused(self, mid: bytes, code: Code) -> bool:
        """The server refuses what came under this mid: whether it was of ours."""
        for asked in (self._asked, self._leaving):
            if mid in asked:
                self._desk.problem(code, "the server refuses that", asked.pop(mid))
                return True
        return False
