"""What the relay asks of a store: accounts, invitations, prekeys, mailboxes.

Whatever may have to touch a disk takes ``done``, and calls it once with the result: before it returns, or later. There
is none after a fault of the store's own, and who must hear of that asks with an :class:`Asked`; nor for what is asked
of a store that was closed. Requests take effect in the order in which they were made, whatever they are about, and
their results come in that order too: so a relay that has asked for a message to be kept, and then asks what is kept, is
told of it.

All times are Unix seconds. Nothing here is refused with an exception; a result says what has become of it. A result
comes when what it says would survive a crash. A store that has no room for a message says so, and goes on; one that can
do its work no longer never calls ``done`` again, and ends the process in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
Done = Callable[[T], object]
Facts = dict[str, object]


class Asked(Generic[T]):
    """A ``done`` of somebody who must hear, too, that there will be no result.

    :ivar failed: called instead, in its turn: what was asked for could not be done, and nothing of it was.
    """

    __slots__ = ("_done", "failed")

    def __init__(self, done: Done[T], failed: Callable[[], object]) -> None:
        self._done = done
        self.failed = failed

    def __call__(self, result: T) -> object:
        return self._done(result)


class Account(NamedTuple):
    """Somebody who may connect.

    :ivar sign: the Ed25519 key, 32 bytes; ``dh`` is the X25519 key, 32 bytes. The id is computed from both.
    :ivar name: as :func:`sims.server.names.prepare` gives it. One id has one name, and keeps it.
    :ivar epoch: the highest that was seen; None before one was.
    """

    id: str
    name: str
    sign: bytes
    dh: bytes
    created: int
    epoch: int | None = None


class Registered(Enum):
    """What has become of a registration."""

    DONE = auto()
    KNOWN = auto()  # the id has an account already; nothing has changed
    INVITE_REQUIRED = auto()  # none, or one that was never given out, was withdrawn, or has expired
    INVITE_USED = auto()
    NAME_TAKEN = auto()


class Accounts(Protocol):
    """Who may connect: id and name belong together one to one."""

    def find(self, account: str, done: Done[Account | None]) -> None:
        """The account of an id."""

    def find_name(self, name: str, done: Done[Account | None]) -> None:
        """The account of a (prepared) name."""

    def register(self, account: Account, invitation: bytes | None, done: Done[Registered]) -> None:
        """Create an account and spend its invitation, both or neither.

        The invitation is looked at first: who has none learns nothing of the names. Whether it has expired is judged
        by the time at which the account is created.

        :param invitation: its hash, or None where none is needed.
        """

    def connected(self, account: str, epoch: int | None, done: Done[Account | None]) -> None:
        """Note the epoch of a connect; gives the account of an id as it was before, or None, and nothing is noted.

        An epoch never goes down.
        """

    def everyone(self, done: Done[Sequence[Account]], most: int | None = None) -> None:
        """All accounts, by name; or at most so many, the first."""

    def delete(self, account: str, done: Done[None]) -> None:
        """Forget an account with everything that is kept on it or for it; its name is free.

        What it has sent, and others have not fetched yet, stays theirs.
        """


class Invitation(NamedTuple):
    """One that was given out.

    :ivar hash: of its token, 32 bytes.
    :ivar uses: for so many more accounts; 0 when it is spent.
    :ivar expires: good before that; None for ever.
    """

    hash: bytes
    uses: int = 1
    expires: int | None = None


class Invitations(Protocol):
    """Invitations, by their hashes alone: who reads the store cannot use them.

    Of the spent ones the newest 10,000 are remembered as such, and expired ones are forgotten with the next
    registration: what an operator gives out, and nobody uses, is all that may grow.
    """

    def invite(self, invitation: bytes, done: Done[None], *, uses: int = 1, expires: int | None = None) -> None:
        """Take note of one that is given out; instead of what was known of it, if it was given out before.

        :param uses: at least 1.
        """

    def invitation(self, invitation: bytes, done: Done[Invitation | None]) -> None:
        """One of them, spent or not; None when it is not known."""


class Published(NamedTuple):
    """A bundle.

    :ivar digest: of its signed bytes and signature, 32 bytes: the same version may be published again as it is.
    :ivar raw: its MessagePack, encoded anew.
    """

    version: int
    digest: bytes
    raw: bytes

    def may_follow(self, before: Published) -> bool:
        """Whether this is no step back."""
        if self.version == before.version:
            return self.digest == before.digest
        return self.version > before.version


class Prekeys(Protocol):
    """Bundles and one-time keys."""

    def bundle(self, owner: str, done: Done[Published | None]) -> None:
        """Somebody's newest bundle."""

    def publish(self, owner: str, bundle: Published, one_time_keys: Sequence[bytes], done: Done[bool]) -> None:
        """Keep a bundle and more one-time keys; False, and nothing is kept, if that would be a step back.

        A step back is a lower version, or the same with another digest. Of the one-time keys the newest 100 are kept;
        one that was handed out before, or is there already, is not taken again.
        """

    def take(self, owner: str, fetcher: str, now: int, done: Done[bytes | None]) -> None:
        """One of somebody's one-time keys, which is forgotten thereby: the oldest.

        None when there is none, and for a fetcher who was given one of this owner's within the last 24 hours.
        """


class Letter(NamedTuple):
    """A message on its way.

    :ivar mid: the sender's name for it, 16 bytes.
    :ivar inner: the inner message, as it will be given to its recipient.
    """

    src: str
    dst: str
    mid: bytes
    inner: bytes


class Quota(NamedTuple):
    """What one mailbox holds: messages and bytes; one sender, a quarter of it.

    :ivar life: seconds after which a message is dropped that nobody has fetched.
    :ivar stranger_messages: of one to whom the owner has never written. All may be ``math.inf``.
    """

    messages: float
    size: float
    life: float
    stranger_messages: float
    stranger_size: float

    @property
    def sender_messages(self) -> float:
        """The quarter of one sender."""
        return self.messages / 4

    @property
    def sender_size(self) -> float:
        """The quarter of one sender, bytes."""
        return self.size / 4


class Kept(Enum):
    """What has become of a message that was to be kept."""

    STORED = auto()
    KNOWN = auto()  # accepted before, under this mid: not kept twice
    FULL = auto()
    UNAVAILABLE = auto()  # the store has no room on its disk: later it may
    NOBODY = auto()  # there is no account of the recipient's id


class Mailboxes(Protocol):
    """Messages for people who are away, or behind."""

    def keep(self, letter: Letter, quota: Quota, now: int, done: Done[Kept]) -> None:
        """Keep a message behind all that are kept for its recipient, until it is acknowledged.

        ``STORED`` comes when it would survive a crash. A mid is remembered for as long as a message lives, per sender
        and recipient, whether or not the message has been fetched meanwhile.
        """

    def waiting(
        self, owner: str, after: int, most: int, since: float, done: Done[Sequence[tuple[int, Letter]]]
    ) -> None:
        """The oldest messages for somebody, each with its number, which is greater the newer the message is.

        :param after: only those with a greater number; 0 for all.
        :param most: at most so many.
        :param since: only those that were accepted after that.
        """

    def acknowledge(self, owner: str, letters: Sequence[tuple[str, bytes]], done: Done[None]) -> None:
        """The owner has these, named by src and mid: they are forgotten but for their mids."""

    def written(self, owner: str, to: str, done: Done[None]) -> None:
        """Note that somebody has written to somebody, who is no stranger to them from now on."""


class Store(Accounts, Invitations, Prekeys, Mailboxes, Protocol):
    """All of it, in one: what belongs together changes together."""

    @property
    def crowded(self) -> bool:
        """Whether so much waits to be done that nobody should be let ask for more until it is less."""

    def facts(self, account: str, done: Done[Facts]) -> None:
        """Everything that is kept about somebody, by name, as MessagePack can say it, in at most 60 KiB.

        Of lists that are longer than 300, 300 of them; of the main ones, how many there are as well.
        """

    def close(self, done: Done[None]) -> None:
        """Everything that was asked for is done, and nothing will be asked for any more."""
