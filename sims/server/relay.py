"""Who is here, where it goes, what is owed: synchronous, without a reactor.

The relay knows members by id. It checks that a sender is who it says, finds the recipient, and decides who has to
wait: a sender is held while a recipient of what it sent cannot take more.
"""

from __future__ import annotations

from typing import Protocol

from sims import messages, wire
from sims.errors import Code, PeerError


class Member(Protocol):
    """One connected client, as the relay sees it."""

    @property
    def id(self) -> int:
        """The number it goes by."""

    @property
    def name(self) -> str:
        """What it calls itself."""

    @property
    def congested(self) -> bool:
        """Whether it had better not be given more now."""

    @property
    def must_be_read(self) -> bool:
        """Whether it takes more only after something that it sends: then it is not held while others are slow."""

    def deliver(self, inner: bytes) -> None:
        """Seal and write an inner message, or keep it until that is possible."""

    def hold(self) -> None:
        """Read nothing more from it until :meth:`release`."""

    def release(self) -> None:
        """Read from it again."""


class Relay:
    """The members of one server."""

    def __init__(self) -> None:
        self._members: dict[int, Member] = {}
        self._waiting_for: dict[Member, set[Member]] = {}
        self._held_by: dict[Member, set[Member]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def is_here(self, member_id: int) -> bool:
        """Whether a member of this id is connected."""
        return member_id in self._members

    def join(self, member: Member) -> None:
        """Take in a member that is through its handshake.

        :raises PeerError: ``name-taken``: its id is in use. It stays with whoever had it first.
        """
        if member.id in self._members:
            raise PeerError(Code.NAME_TAKEN, "the id is in use")
        self._members[member.id] = member

    def leave(self, member: Member) -> None:
        """Forget a member, and let those go on that waited for it."""
        if self._members.get(member.id) is member:
            del self._members[member.id]
        self.drained(member)
        for target in self._held_by.pop(member, set()):
            self._waiting_for[target].discard(member)

    def entries(self, asker: Member) -> list[messages.ListEntry]:
        """Who is here, the asker first."""
        others = [member for member in self._members.values() if member is not asker]
        return [messages.ListEntry(name=member.name, id=member.id) for member in [asker, *others]]

    def route(self, sender: Member, message: messages.Relayed | messages.PlainCom | messages.Error) -> None:
        """Give a message to its recipient, as it was but encoded anew.

        :raises PeerError: ``malformed``, ``not-sender``, ``unknown-recipient``, ``too-large``; nobody got it then.
        """
        if not isinstance(message.src, int | str) or not isinstance(message.dst, int | str):
            raise PeerError(Code.MALFORMED, "a message without src and dst")
        if wire.as_id(message.src) != sender.id:
            raise PeerError(Code.NOT_SENDER, "the src of a message is not its sender")
        target = self._members.get(wire.as_id(message.dst))
        if target is None:
            raise PeerError(Code.UNKNOWN_RECIPIENT, "the recipient is not here")
        inner = wire.encode(message)
        if len(inner) > wire.MAX_INNER:
            raise PeerError(Code.TOO_LARGE, "a message that does not fit in a frame")
        self.give(sender, target, inner, waits=not isinstance(message, messages.ClientAck))

    def give(self, sender: Member, target: Member, inner: bytes, *, waits: bool = True) -> None:
        """Deliver what ``sender`` caused, and hold the sender if ``target`` cannot take more.

        :param waits: False for what its sender had no choice about, like an acknowledgement: or else whoever sends to
            somebody and takes nothing could keep that one from everybody.
        """
        target.deliver(inner)
        if waits and target.congested and not sender.must_be_read:
            self.wait(sender, target)

    def wait(self, sender: Member, target: Member) -> None:
        """Hold ``sender`` until ``target``, which may be itself, takes more."""
        self._waiting_for.setdefault(target, set()).add(sender)
        self._held_by.setdefault(sender, set()).add(target)
        sender.hold()

    def drained(self, target: Member) -> None:
        """``target`` takes more again."""
        for sender in self._waiting_for.pop(target, set()):
            self._let_go(sender, target)

    def needs_reading(self, sender: Member) -> None:
        """``sender`` must be read to make progress: it waits for nobody any longer."""
        for target in list(self._held_by.get(sender, ())):
            self._waiting_for[target].discard(sender)
            self._let_go(sender, target)

    def _let_go(self, sender: Member, target: Member) -> None:
        holders = self._held_by.get(sender, set())
        holders.discard(target)
        if not holders:
            self._held_by.pop(sender, None)
            sender.release()
