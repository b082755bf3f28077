"""``python -m tests.bench crypto``: the end-to-end sessions beside those of other libraries, in one run.

Each library does the same: one end seals a text of 300 bytes, the other opens it. The slices of all are interleaved, so
that what the machine does meanwhile meets them alike; medians of the slices are printed.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from sims import specs
from sims.crypto.identity import Identity
from sims.crypto.opening import accept_session, open_session
from sims.crypto.prekeys import OwnPrekeys
from sims.crypto.primitives import SystemEntropy
from sims.crypto.session import Incoming, Session
from sims.specs import ModernSpec

TEXT_SIZE = 300
SLICES = 15
T = TypeVar("T")


class Pair(Protocol):
    """Two ends of one session, of some library."""

    def there(self) -> None:
        """A text from the first to the second."""

    def back(self) -> None:
        """A text from the second to the first."""


class Sims:
    """This package's sessions."""

    entropy = SystemEntropy()

    def __init__(self, spec: ModernSpec) -> None:
        self._specs = (spec,)
        self._now = int(time.time())
        self._content = os.urandom(32) + bytes(TEXT_SIZE)
        self._one, self._other = (Identity.generate(self.entropy) for _ in range(2))
        self._prekeys = OwnPrekeys()
        self._bundle = self._prekeys.make_bundle(
            self._other, "other", (spec.name,), now=self._now, entropy=self.entropy, published=None
        )
        self.start()
        for _ in range(2):
            self.back()
            self.there()

    def start(self) -> None:
        """Begin a session, up to the first text at the other end; a one-time key is made beforehand in other programs,
        so it is not counted here."""
        keys = self._prekeys.make_one_time_keys(self._other, 1, now=self._now, entropy=self.entropy)
        begin = time.process_time()
        self._a: Session = open_session(
            self._one,
            self._specs,
            self._bundle,
            keys[0],
            now=self._now,
            entropy=self.entropy,
            expected=self._other.id,
        )
        out = self._a.seal(self._content, self.entropy)
        came = Incoming(self._one.id, self._other.id, out.phase, out.ciphers, out.data)
        self._b, _ = accept_session(self._other, self._prekeys, self._specs, came, now=self._now, entropy=self.entropy)
        self.started = time.process_time() - begin
        self._confirm()

    def _confirm(self) -> None:
        """Phases 2, 3 and 4: what is measured in order is what a conversation is after them."""
        for end, other, ids in (
            (self._b, self._a, (self._other.id, self._one.id)),
            (self._a, self._b, (self._one.id, self._other.id)),
            (self._b, self._a, (self._other.id, self._one.id)),
        ):
            out = end.seal(None, self.entropy)
            other.open(Incoming(*ids, out.phase, out.ciphers, out.data), self._now)

    def there(self) -> None:
        out = self._a.seal(self._content, self.entropy)
        self._b.open(Incoming(self._one.id, self._other.id, out.phase, out.ciphers, out.data), self._now)

    def back(self) -> None:
        out = self._b.seal(self._content, self.entropy)
        self._a.open(Incoming(self._other.id, self._one.id, out.phase, out.ciphers, out.data), self._now)


class Vodozemac:
    """Olm, in Rust."""

    def __init__(self) -> None:
        import vodozemac

        self._one, self._other = vodozemac.Account(), vodozemac.Account()
        self._text = bytes(TEXT_SIZE)
        self.start()
        for _ in range(2):
            self.back()
            self.there()

    def start(self) -> None:
        """Begin a session, up to the first text at the other end."""
        self._other.generate_one_time_keys(1)
        key = next(iter(self._other.one_time_keys.values()))
        self._other.mark_keys_as_published()
        begin = time.process_time()
        self._a = self._one.create_outbound_session(self._other.curve25519_key, key)
        first = self._a.encrypt(self._text).to_pre_key()
        if first is None:
            raise SystemExit("the first message is none that begins a session")
        self._b, _ = self._other.create_inbound_session(self._one.curve25519_key, first)
        self.started = time.process_time() - begin

    def there(self) -> None:
        self._b.decrypt(self._a.encrypt(self._text))

    def back(self) -> None:
        self._a.decrypt(self._b.encrypt(self._text))


class Twomemo:
    """OMEMO 2, in Python."""

    def __init__(self) -> None:
        import x3dh
        from twomemo import twomemo

        self._library: Any = twomemo
        self._loop = asyncio.new_event_loop()
        self._one, self._other = (
            twomemo.StateImpl.create(x3dh.IdentityKeyFormat.ED_25519, x3dh.HashFunction.SHA_256, twomemo.StateImpl.INFO)
            for _ in range(2)
        )
        self._text = bytes(TEXT_SIZE)
        self.start()
        for _ in range(2):
            self.back()
            self.there()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """A coroutine that waits for nothing: the event loop's own time is not the library's."""
        try:
            work.send(None)
        except StopIteration as done:
            found: T = done.value
            return found
        raise RuntimeError("it waits for something")

    def start(self) -> None:
        """Begin a session, up to the first text at the other end."""
        library = self._library
        self._other.generate_pre_keys(1)
        begin = time.process_time()
        self._run(self._start(library))
        self.started = time.process_time() - begin

    async def _start(self, library: Any) -> None:
        bundle = self._other.bundle
        secret, data, header = await self._one.get_shared_secret_active(bundle)
        common = (
            library.diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
            library.RootChainKDFImpl,
            library.MessageChainKDFImpl,
            library.DoubleRatchetImpl.MESSAGE_CHAIN_CONSTANT,
            1000,
            1000,
            library.AEADImpl,
        )
        self._data = data
        self._a, first = await library.DoubleRatchetImpl.encrypt_initial_message(
            *common, secret, bundle.signed_pre_key, self._text, data
        )
        secret, data, pair = await self._other.get_shared_secret_passive(header)
        self._b, _ = await library.DoubleRatchetImpl.decrypt_initial_message(*common, secret, pair.priv, first, data)

    def there(self) -> None:
        async def work() -> None:
            await self._b.decrypt_message(await self._a.encrypt_message(self._text, self._data), self._data)

        self._run(work())

    def back(self) -> None:
        async def work() -> None:
            await self._a.decrypt_message(await self._b.encrypt_message(self._text, self._data), self._data)

        self._run(work())


def _timed(act: Callable[[], None], count: int) -> float:
    begin = time.process_time()
    for _ in range(count):
        act()
    return (time.process_time() - begin) / count * 1e6


def bench_crypto(scale: float) -> None:
    """Print microseconds of each operation and the ratios to vodozemac."""
    pairs: dict[str, Any] = {spec.name: Sims(spec) for spec in specs.MODERN}
    pairs["vodozemac"] = Vodozemac()
    try:
        pairs["twomemo"] = Twomemo()
    except ImportError:
        print("(twomemo is not installed: pip install -e '.[bench]')")

    def turn(pair: Any) -> Callable[[], None]:
        def act() -> None:
            pair.there()
            pair.back()

        return act

    def start(pair: Any) -> Callable[[], None]:
        def act() -> None:
            pair.start()

        return act

    rows: dict[str, dict[str, list[float]]] = {"in order": {}, "turn": {}, "start": {}}
    for _ in range(SLICES):
        for name, pair in pairs.items():
            pair.there()
            rows["in order"].setdefault(name, []).append(_timed(pair.there, int(200 * scale)))
        for name, pair in pairs.items():
            rows["turn"].setdefault(name, []).append(_timed(turn(pair), int(30 * scale)) / 2)
        for name, pair in pairs.items():
            spent = []
            for _ in range(int(5 * scale)):
                pair.start()
                spent.append(pair.started * 1e6)
            rows["start"].setdefault(name, []).append(statistics.mean(spent))
            pair.back()
            pair.there()
    print(f"{TEXT_SIZE}-byte texts; microseconds of CPU, medians of {SLICES} interleaved slices; x: times vodozemac's")
    titles = {"in order": "seal + open", "turn": "ratchet turn", "start": "session start"}
    print(f"{'':42}" + "".join(f"{titles[row]:>22}" for row in rows))
    for name in pairs:
        line = f"{name:42}"
        for row in rows.values():
            own, theirs = statistics.median(row[name]), statistics.median(row["vodozemac"])
            line += f"{own:14.1f} ({own / theirs:4.2f}x)"
        print(line)
    print("seal + open: both together, in one chain. ratchet turn: seal with a step and open with a step; sims' steps")
    print("are hybrid (X25519 and ML-KEM-768), and so is its session start; the others' are X25519 alone.")
