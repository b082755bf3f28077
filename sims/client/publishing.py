"""One's own bundle and one-time keys at the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sims import inner
from sims.client.talks import Talks
from sims.crypto.identity import Identity
from sims.crypto.prekeys import LIFE, MAX_PUBLISHED, REPLACED_AFTER, Bundle, OneTimeKey
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code
from sims.specs import ModernSpec

#: With fewer one-time keys that nobody has used, new ones are published.
FEW = 20
#: A bundle that the server refuses is made anew so many times on one connection, behind the server's copy.
ATTEMPTS = 2


class Publishing:
    """Keeps them fresh: the bundle is published on every connection, replaced weekly, and one-time keys refilled.

    :param fetch_own: asks the server for its copy of the own bundle.
    """

    def __init__(
        self,
        identity: Identity,
        specs: Sequence[ModernSpec],
        talks: Talks,
        *,
        entropy: ModernEntropy,
        send: Callable[[inner.Publish], None],
        fetch_own: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._specs = tuple(spec.name for spec in specs)
        self._talks = talks
        self._entropy = entropy
        self._send = send
        self._fetch_own = fetch_own
        self._name = ""
        self._mid: bytes | None = None  # of the publish that is out
        self._waits = False  # for the server's copy
        self._attempts = 0

    def __repr__(self) -> str:
        return "<publishing>"

    def joined(self, name: str, now: int, *, restored: bool) -> None:
        """There is a new connection to the server, which knows us by this name."""
        self._name = name
        self._attempts = 0
        bundle = self._talks.prekeys.bundle
        if restored:
            self._ask()
        elif bundle is None or bundle.name != name or self._is_old(bundle, now):
            self._publish(None, now)
        else:
            self._out(bundle, [])

    def lost(self) -> None:
        """The connection is gone."""
        self._mid = None
        self._waits = False

    def tick(self, now: int) -> None:
        """Publish what has become due."""
        bundle = self._talks.prekeys.bundle
        if self._mid is not None or self._waits or bundle is None:
            return
        if self._is_old(bundle, now):
            self._publish(None, now)
        elif len(self._talks.prekeys.one_time_ids) < FEW:
            self._out(bundle, self._one_time_keys(now))

    def accepted(self, mid: bytes) -> None:
        """The server has taken what was published."""
        if mid == self._mid:
            self._mid = None
            self._attempts = 0

    def refused(self, mid: bytes, code: Code) -> bool:
        """The server has refused what was published; False, if this was not that, or nothing helps."""
        if mid != self._mid:
            return False
        self._mid = None
        self._attempts += 1
        if code in (Code.RATE_LIMITED, Code.INTERNAL, Code.UNAVAILABLE) or self._attempts > ATTEMPTS:
            self._waits = True  # until the next connection
            return False
        self._ask()
        return True

    def took_own(self, person: str, bundle: Bundle, now: int) -> bool:
        """The server's copy of the own bundle has come; False, if this was not that."""
        if not self._waits or person != self._identity.id:
            return False
        self._waits = False
        self._publish(bundle, now)
        return True

    def no_own(self, person: str, now: int) -> bool:
        """The server has no copy; False, if this was not that."""
        if not self._waits or person != self._identity.id:
            return False
        self._waits = False
        self._publish(None, now)
        return True

    def _ask(self) -> None:
        self._waits = True
        self._fetch_own()

    def _is_old(self, bundle: Bundle, now: int) -> bool:
        """A bundle lives for 30 days from when it was made, so that its age shows in its end."""
        return now >= bundle.expires - LIFE + REPLACED_AFTER

    def _publish(self, published: Bundle | None, now: int) -> None:
        prekeys = self._talks.prekeys.copy()
        bundle = prekeys.make_bundle(
            self._identity, self._name, self._specs, now=now, entropy=self._entropy, published=published
        )
        self._talks.keep_prekeys(prekeys)
        few = len(prekeys.one_time_ids) < FEW
        self._out(bundle, self._one_time_keys(now) if few else [])

    def _one_time_keys(self, now: int) -> list[OneTimeKey]:
        prekeys = self._talks.prekeys.copy()
        made = prekeys.make_one_time_keys(self._identity, MAX_PUBLISHED, now=now, entropy=self._entropy)
        self._talks.keep_prekeys(prekeys)
        return made

    def _out(self, bundle: Bundle, one_time_keys: Sequence[OneTimeKey]) -> None:
        self._mid = self._entropy.octets(16)
        keys = tuple(inner.pack(key) for key in one_time_keys)
        self._send(inner.Publish(mid=self._mid, data=inner.PublishData(bundle=inner.pack(bundle), one_time_keys=keys)))
