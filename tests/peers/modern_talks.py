"""What a client of sims/2 keeps, and what it does with what comes from its peers, made from the protocol page alone.

Nothing here touches a socket: `post` takes messages to send, `fetch` asks for a bundle, `emit` takes events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.peers.modern_content import START, Content, Order, make_content
from tests.peers.modern_identity import Identity, Prekeys, check_bundle, check_one_time
from tests.peers.modern_primitives import (
    DEFAULT_SPECS,
    Draws,
    DuplicateError,
    Map,
    RefusedError,
    as_map,
    number_field,
    pack,
    raw_field,
)
from tests.peers.modern_session import Opened, Session

KEPT_SESSIONS = 6  # the one that is used, and five others
BUNDLE_LIFE = 30 * 86_400
Answer = Callable[[Map | None, str], None]  # the reply's data, or None and a code


@dataclass
class Talk:
    """A session and its place among the others of the same person."""

    session: Session
    heard: int = 0  # when it was heard last
    closed: bool = False
    due: int | None = None
    unconfirmed: list[Content] = field(default_factory=list)

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The highest is used to send ("Both open at once")."""
        return self.session.confirmed, self.heard, -int.from_bytes(self.session.th1, "big")


class Talks:
    """A store and its rules.

    :ivar unreadable_every: seconds between two `unreadable` to the same person.
    :ivar receipts: whether `delivered` receipts are sent.
    :ivar sent: mid to (peer, content) of everything sent with a content.
    """

    def __init__(self, name: str, specs: Sequence[str] = DEFAULT_SPECS, identity: Identity | None = None) -> None:
        self.name, self.specs, self.identity, self.draws = name, [*specs], identity or Identity.fresh(), Draws()
        self.id = self.identity.id
        self.receipts, self.unreadable_every = True, 3_600.0
        self.epoch, self.version, self.tick = 0, 0, 0
        self.stream = self.draws.random("stream", 8)
        self.prekeys = Prekeys()
        self.published: dict[int, list[str]] = {}  # prekey id to the specs published with it
        self.people: dict[str, list[Talk]] = {}
        self.accepted: set[bytes] = set()
        self.seen: set[tuple[str, bytes]] = set()
        self.shown: set[tuple[str, bytes]] = set()
        self.delivered: set[tuple[str, bytes]] = set()
        self.orders: dict[tuple[str, bytes], Order] = {}
        self.tails: dict[str, tuple[int, bytes]] = {}  # seq and chain of the last content to a person
        self.sent: dict[bytes, tuple[str, Content]] = {}
        self.outbox: dict[bytes, Map] = {}
        self.waiting: dict[str, list[Content]] = {}  # contents for whom there is no session yet
        self.bundles: dict[str, Map] = {}  # the last bundle seen of a person
        self.told: dict[str, float] = {}
        self.asking: dict[str, Talk] = {}  # the session last opened for an `unreadable`
        self.emit: Callable[[Map], None] = lambda event: None
        self.post: Callable[[Map], None] = lambda inner: None
        self.fetch: Callable[[str, Answer], None] = lambda peer, answer: None

    # --- prekeys ---

    def new_bundle(self, one_time: int) -> Map:
        """The data of a `publish`."""
        self.version = max(self.version + 1, int(time.time()))
        expires = int(time.time()) + BUNDLE_LIFE - 60
        bundle = self.prekeys.make_bundle(self.identity, self.name, self.specs, self.version, expires, self.draws)
        self.published[bundle["prekey"]["key_id"]] = self.specs
        keys = [self.prekeys.make_one_time(self.identity, self.draws) for _ in range(one_time)]
        return {"bundle": bundle, "one_time_keys": keys}

    def check(self, peer: str | None, data: Map) -> tuple[Map, Map | None]:
        """A bundle and one-time key as fetched, or refused."""
        bundle, one_time = as_map(data.get("bundle")), data.get("one_time_key")
        owner = check_bundle(bundle, time.time(), peer)
        last = self.bundles.get(owner.id)
        if last is not None and bundle["version"] < last["version"]:
            raise RefusedError("policy", "an older bundle than one seen before")
        if last is not None and bundle["version"] == last["version"] and pack(bundle) != pack(last):
            raise RefusedError("policy", "another bundle of the same version")
        if one_time is not None:
            check_one_time(owner, as_map(one_time))
        self.bundles[owner.id] = bundle
        return bundle, one_time

    # --- out ---

    def say(self, peer: str, kind: str, talk: Talk | None = None, **fields: Any) -> bytes:
        """Send a content, opening a session if there is none; gives its id."""
        seq, chain = self.tails.get(peer, (0, START))
        content_id = self.draws.random("id", 16)
        head = {"kind": kind, "id": content_id, "stream": self.stream, "seq": seq + 1, "time": int(time.time())}
        content = Content.parse(make_content(chain, {**head, **fields}))
        self.tails[peer] = content.seq, content.chain
        self._give(peer, content, talk)
        return content_id

    def best(self, peer: str) -> Talk | None:
        """The session that messages are sent on."""
        return max((talk for talk in self.people.get(peer, ()) if not talk.closed), key=lambda t: t.rank, default=None)

    def retry(self) -> None:
        """Ask again for the bundles of those for whom contents wait."""
        for peer in list(self.waiting):
            self._open_to(peer)

    def _give(self, peer: str, content: Content, talk: Talk | None = None) -> None:
        talk = talk or self.best(peer)
        if talk is not None:
            self._seal(talk, content)
            return
        self.waiting.setdefault(peer, []).append(content)
        self._open_to(peer)

    def _seal(self, talk: Talk, content: Content | None) -> None:
        mid = self.draws.random("mid", 16)
        inner = talk.session.seal(content.raw if content else None, mid, self.draws)
        if inner.get("phase") == talk.due:
            talk.due = None
        if content is not None:
            self.sent[mid] = talk.session.peer_id, content
        self.outbox[mid] = inner
        self.post(inner)

    def _open_to(self, peer: str, first: Callable[[Talk], None] | None = None) -> None:
        """Open a session, and give it what waits; after `first`, if that is given."""

        def answer(data: Map | None, code: str) -> None:
            if first is None and self.best(peer) is not None:
                self._flush(peer)
                return
            try:
                if data is None:
                    raise RefusedError(code, "no bundle")
                bundle, one_time = self.check(peer, data)
                session = Session.initiate(self.identity, self.specs, bundle, one_time, self.draws)
            except RefusedError as error:
                self.emit({"event": "cannot-open", "peer": peer, "code": error.code, "text": str(error)})
                return
            talk = self._keep(peer, Talk(session))
            if first is not None:
                first(talk)
            self._flush(peer)

        self.fetch(peer, answer)

    def _flush(self, peer: str) -> None:
        for content in self.waiting.pop(peer, []):
            self._give(peer, content)

    def _keep(self, peer: str, talk: Talk) -> Talk:
        talks = self.people.setdefault(peer, [])
        talks.append(talk)
        if len(talks) > KEPT_SESSIONS:
            talks.remove(min(talks[:-1], key=lambda one: one.rank))
        return talk

    # --- in ---

    def take(self, inner: Map) -> None:
        """A client-connect or client-com, which is acknowledged after this; a mid that was seen is ignored."""
        src, mid = str(inner.get("src")), raw_field(inner, "mid", 16)
        if (src, mid) in self.seen:
            return
        try:
            talk, opened = self._receive(src, inner)
            content = None if opened.content is None else Content.parse(opened.content)
        except DuplicateError:
            self.emit({"event": "duplicate", "from": src, "mid": mid})
        except RefusedError as error:
            self.emit({"event": "unreadable", "from": src, "mid": mid, "code": error.code, "text": str(error)})
            self.tell_unreadable(src, mid)
        else:
            self._opened(src, talk, opened, content)
        self.seen.add((src, mid))

    def _receive(self, src: str, inner: Map) -> tuple[Talk, Opened]:
        error = RefusedError("not-authenticated", "no session")
        for talk in sorted(self.people.get(src, ()), key=lambda one: one.rank, reverse=True):
            try:
                return talk, talk.session.receive(inner)
            except DuplicateError:
                raise
            except RefusedError as refused:
                error = refused
        if inner.get("type") != "client-connect" or inner.get("phase") != 1:
            raise error
        data = as_map(inner.get("data"))
        if data.get("public_key") in self.accepted:
            raise RefusedError("malformed", "an a1 that was accepted before")
        specs = self.published.get(number_field(data, "prekey_id"), [])
        session, opened = Session.accept(self.identity, specs, self.prekeys, inner, self.draws)
        self.accepted.add(data["public_key"])
        self.prekeys.one_time.pop(data.get("one_time_id", -1), None)
        return self._keep(src, Talk(session)), opened

    def _opened(self, src: str, talk: Talk, opened: Opened, content: Content | None) -> None:
        first, confirmed = opened.due == 2, talk.session.confirmed
        talk.due = opened.due or talk.due
        if not opened.late and not first:
            self.tick += 1
            talk.heard = self.tick
        if opened.due is not None:
            event = {2: "opened", 3: "confirmed", 4: "confirmed"}[opened.due]
            self.emit({"event": event, "peer": src, "spec": talk.session.spec, "role": talk.session.role})
        if talk.due == 4:
            self._seal(talk, None)
        while confirmed and talk.unconfirmed:
            early = talk.unconfirmed.pop(0)
            self._order(src, early).count(early)
            if early.kind != "text":
                self._act(src, talk, early)
        if content is not None:
            order = self._order(src, content)
            verdict = order.count(content) if confirmed else self._judge(talk, order, content)
            if content.kind == "text":
                self._show(src, talk, content, verdict)
            elif confirmed:
                self._act(src, talk, content)
        if talk.due is not None:
            self._seal(talk, None)

    def _judge(self, talk: Talk, order: Order, content: Content) -> str:
        """The place of a content that doesn't count yet, with those before it that don't either."""
        order = Order(order.seq, order.chain, dict(order.beyond))
        for early in talk.unconfirmed:
            order.count(early)
        talk.unconfirmed.append(content)
        return order.judge(content)

    def _order(self, src: str, content: Content) -> Order:
        return self.orders.setdefault((src, content.stream), Order())

    def _show(self, src: str, talk: Talk, content: Content, verdict: str) -> None:
        if (src, content.id) not in self.shown:
            self.shown.add((src, content.id))
            told = {"text": content.fields.get("body"), "id": content.id, "order": verdict}
            self.emit({"event": "text", "from": src, **told, "confirmed": talk.session.confirmed})
        if self.receipts:
            chain = self._order(src, content).chain
            self.say(src, "receipt", talk, ids=[content.id], state="delivered", chain=chain)

    def _act(self, src: str, talk: Talk, content: Content) -> None:
        fields = content.fields
        if content.kind == "receipt":
            for content_id in fields.get("ids", []):
                self.delivered.add((src, content_id))
                self.emit({"event": "receipt", "from": src, "id": content_id, "state": fields.get("state")})
        elif content.kind == "disconnect":
            talk.closed = True
            self.emit({"event": "disconnect", "from": src})
        elif content.kind == "unreadable":
            to, again = self.sent.pop(raw_field(fields, "ref"), ("", None))
            known = again is not None and to == src and (src, again.id) not in self.delivered
            self.emit({"event": "told-unreadable", "from": src, "ref": fields["ref"], "again": known})
            if again is not None and known:
                self._give(src, again)

    def tell_unreadable(self, src: str, mid: bytes) -> None:
        """Say on a new session, while nothing answers it, that a mid could not be opened, if it is time for that."""
        now = time.monotonic()
        if now - self.told.get(src, -1e9) < self.unreadable_every:
            return
        self.told[src] = now
        talk = self.asking.get(src)
        if talk is not None and not talk.session.heard:
            self.say(src, "unreadable", talk, ref=mid)
            return

        def first(talk: Talk) -> None:
            self.asking[src] = talk
            self.say(src, "unreadable", talk, ref=mid)

        self._open_to(src, first)
