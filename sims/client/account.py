"""Our account at the server: what it keeps on us, and the end of it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UnsetType

from sims import inner
from sims.client.desk import Desk, Ref
from sims.client.events import About, AccountDeleted
from sims.errors import Code, LocalError, PeerError

#: Refusals of connect for those whom the server does not know.
_STRANGERS = frozenset({Code.INVITE_REQUIRED, Code.INVITE_USED, Code.NAME_TAKEN, Code.POLICY})
_SHUT_OUT = (
    "the connection was lost before the server had said whether it has forgotten you; now it refuses you, as it does "
    "whom it does not know"
)


class Account:
    """Whether there is one, and questions about it that are not answered.

    :param send: sends a message that is not kept.
    :ivar is_member: whether the server has an account of ours, as far as we know.
    """

    def __init__(
        self,
        desk: Desk,
        send: Callable[[inner.Inner], None],
        random: Callable[[int], bytes],
        *,
        is_member: bool,
    ) -> None:
        self.is_member = is_member
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

    # --- the server knows us, or does not -----------------------------------------------------------------------------

    def taken_in(self) -> None:
        """The server has an account of ours."""
        if not self.is_member:
            self.is_member = True
            self._desk.ledger.value("member", b"1")

    def not_member(self) -> None:
        """It has none, or says so."""
        if self.is_member:
            self.is_member = False
            self._desk.ledger.value("member", None)

    def shut_out(self, code: Code) -> None:
        """The server refuses connect. If it was asked to forget us, and its answer was lost, that may be why.

        :raises PeerError: so it may be; with the same code. Nothing proves a refusal, so it cannot be said for sure.
        """
        if not self._leaving or code not in _STRANGERS:
            return
        self.not_member()
        leaving, self._leaving = self._leaving, {}
        for ref in leaving.values():
            if ref is not None:
                self._desk.problem(code, _SHUT_OUT, ref)
        raise PeerError(code, _SHUT_OUT)

    # --- answers ------------------------------------------------------------------------------------------------------

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
        self.not_member()
        return True

    def refused(self, mid: bytes, code: Code) -> bool:
        """The server refuses what came under this mid: whether it was of ours."""
        for asked in (self._asked, self._leaving):
            if mid in asked:
                self._desk.problem(code, "the server refuses that", asked.pop(mid))
                return True
        return False
