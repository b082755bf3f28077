"""One's own bundle and one-time keys at the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sims import inner
from sims.client.ledger import Ledger
from sims.client.talks import Talks
from sims.crypto.identity import Identity
from sims.crypto.prekeys import LIFE, MAX_PUBLISHED, REPLACED_AFTER, Bundle, OneTimeKey
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, LocalError
from sims.specs import ModernSpec

#: With fewer one-time keys that nobody has used, new ones are published.
FEW = 20
#: A restored store does not have the private halves of what the server holds: so many times as much is published.
ROUNDS = 3
#: A bundle that the server refuses is made anew so many times on one connection, behind the server's copy.
ATTEMPTS = 2


class Publishing:
    """Keeps them fresh: the bundle is published on every connection, replaced weekly, and one-time keys refilled.

    One-time keys that the server has not acknowledged go out again: a connection that breaks costs no new ones.

    :param fetch_own: asks the server for its copy of the own bundle.
    :param outdated: the last client of this store did not come to publish what it had to: it was restored from a copy,
        or its one-time keys were on their way to the server when it ended.
    :ivar waits: for the server's copy.
    """

    def __init__(
        self,
        identity: Identity,
        specs: Sequence[ModernSpec],
        talks: Talks,
        ledger: Ledger,
        *,
        entropy: ModernEntropy,
        send: Callable[[inner.Publish], None],
        fetch_own: Callable[[], None],
        outdated: bool,
    ) -> None:
        self._identity = identity
        self._specs = tuple(spec.name for spec in specs)
        self._talks = talks
        self._ledger = ledger
        self._entropy = entropy
        self._send = send
        self._fetch_own = fetch_own
        self._owed = ROUNDS if outdated else 0  # so many times one-time keys, until the server has the last of them
        self._unpublished: list[OneTimeKey] = []  # were made, and the server has not acknowledged them
        self._name = ""
        self._most = MAX_PUBLISHED
        self._mid: bytes | None = None  # of the publish that is out
        self._sent = 0  # so many of the unpublished are in it, the first
        self._over = True  # nothing can be done before the next connection
        self.waits = False
        self._attempts = 0

    def __repr__(self) -> str:
        return "<publishing>"

    @property
    def is_out(self) -> bool:
        """Whether something is published, or to be, and the server has not taken it yet."""
        return self._mid is not None or self.waits

    def joined(self, name: str, now: int, *, restored: bool, unknown: bool, most: int) -> None:
        """There is a new connection to the server, which knows us by this name.

        :param restored: this store was restored from a copy.
        :param unknown: the server has never seen us before, so that it has none of our keys.
        :param most: so many one-time keys fit in one message.
        """
        self._name = name
        self._most = min(MAX_PUBLISHED, most)
        self._attempts = 0
        self._over = False
        self._owe(ROUNDS if restored else int(unknown and self._most > 0))
        if restored:
            self._unpublished = []  # another client of this store may have published others under their numbers
        bundle = self._talks.prekeys.bundle
        if self._owed >= ROUNDS:
            self._ask()
        elif bundle is None or bundle.name != name or bundle.specs != self._specs or self._is_old(bundle, now):
            self._publish(None, now)
        else:
            self._out(bundle, [])

    def lost(self) -> None:
        """The connection is gone."""
        self._mid = None
        self.waits = False
        self._over = True

    def tick(self, now: int) -> None:
        """Publish what has become due; to be called while there is a connection."""
        bundle = self._talks.prekeys.bundle
        if self._mid is not None or self.waits or self._over or bundle is None:
            return
        if self._is_old(bundle, now):
            self._publish(None, now)
        elif keys := self._one_time_keys(now):
            self._out(bundle, keys)

    def accepted(self, mid: bytes) -> None:
        """The server has taken what was published."""
        if mid == self._mid:
            self._mid = None
            del self._unpublished[: self._sent]
            if self._unpublished:
                return
            self._attempts = 0
            if self._sent:
                self._owed -= 1
                if not self._owed:
                    self._ledger.value("outdated", None)

    def refused(self, mid: bytes, code: Code) -> bool:
        """The server has refused what was published; False, if this was not that, or nothing helps."""
        if mid != self._mid:
            return False
        self._mid = None
        self._attempts += 1
        if code is not Code.POLICY or self._attempts > ATTEMPTS:
            self._over = True
            return False
        self._ask()  # it has a newer one than ours
        return True

    def took_own(self, bundle: Bundle | None, now: int) -> None:
        """The server's copy of the own bundle has come, or there is none.

        :raises LocalError: ``policy``: nothing of ours can follow it.
        """
        self.waits = False
        try:
            self._publish(bundle, now)
        except LocalError:
            self._over = True
            raise

    def _owe(self, rounds: int) -> None:
        """The server lacks one-time keys, or may lack them, in spite of those of which the private halves are here."""
        if rounds and not self._owed:
            self._ledger.value("outdated", b"1")
        self._owed = max(self._owed, rounds)

    def _ask(self) -> None:
        self.waits = True
        self._fetch_own()

    def _is_old(self, bundle: Bundle, now: int) -> bool:
        """A bundle lives for 30 days from when it was made, so that its age shows in its end.

        One that seems to be of the future was made before the own clock was set back.
        """
        made = bundle.expires - LIFE
        return not made - REPLACED_AFTER <= now < made + REPLACED_AFTER

    def _publish(self, published: Bundle | None, now: int) -> None:
        prekeys = self._talks.prekeys.copy()
        bundle = prekeys.make_bundle(
            self._identity, self._name, self._specs, now=now, entropy=self._entropy, published=published
        )
        self._talks.keep_prekeys(prekeys)
        self._out(bundle, [])  # small, so that others can have it at once; one-time keys follow

    def _one_time_keys(self, now: int) -> list[OneTimeKey]:
        """Those that the server has not acknowledged, or else new ones, if there is a need for them."""
        unused = self._talks.prekeys.one_time_ids
        self._unpublished = [key for key in self._unpublished if key.key_id in unused]  # it had those that were used
        if self._most and not self._unpublished and (self._owed or len(unused) < FEW):
            self._owe(1)
            prekeys = self._talks.prekeys.copy()
            self._unpublished = prekeys.make_one_time_keys(self._identity, self._most, now=now, entropy=self._entropy)
            self._talks.keep_prekeys(prekeys)
        return self._unpublished[: self._most]

    def _out(self, bundle: Bundle, one_time_keys: Sequence[OneTimeKey]) -> None:
        self._mid = self._entropy.octets(16)
        self._sent = len(one_time_keys)
        keys = tuple(inner.pack(key) for key in one_time_keys)
        self._send(inner.Publish(mid=self._mid, data=inner.PublishData(bundle=inner.pack(bundle), one_time_keys=keys)))
