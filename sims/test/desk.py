"""One messenger on a desk: the test plays the server and the other clients, message by message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sims import messages, specs, wire
from sims.client import events
from sims.client.seed import SeedMessenger
from sims.crypto.primitives import Entropy
from sims.crypto.seed import End, Initiator, Keys, Phase, Responder, Session
from sims.strictjson import Octets32, Pem
from sims.test.cheapkeys import SeededEntropy


class Desk:
    """A :class:`SeedMessenger` and the server's end of its hop.

    :ivar now: the time, which the test sets.
    :ivar roster: the names and ids that the server answers a list request with.
    :ivar sent: the inner messages that came and were not taken from here, but for list requests.
    :ivar lists: how many list requests came.
    :ivar acknowledging: frames are acknowledged.
    """

    def __init__(self, own_id: int = 5, *, cheap: bool = False) -> None:
        self.now = 1000.0
        self.entropy = SeededEntropy(own_id, cheap=cheap)
        self.messenger = SeedMessenger("me", own_id, clock=lambda: self.now, entropy=self.entropy)
        self.roster: list[tuple[str, int]] = [("me", own_id)]
        self.sent: list[dict[str, Any]] = []
        self.lists = 0
        self.acknowledging = True
        self.responder: Responder | None = None
        self.session: Session | None = None

    def connect(self) -> Desk:
        """The connection is there, and the handshake goes through."""
        self.responder = Responder(End.SERVER, specs.SEED, self.entropy)
        self.messenger.connected()
        self.read()
        return self

    def lose(self) -> None:
        """The connection is gone."""
        self.session = self.responder = None
        self.messenger.lost()

    def do(self, command: Callable[[SeedMessenger], object]) -> None:
        """Give a command, and read what comes of it."""
        command(self.messenger)
        self.read()

    def give(self, inner: messages.InnerMessage | dict[str, Any]) -> None:
        """An inner message from the server, and what comes of it."""
        plaintext = json.dumps(inner).encode() if isinstance(inner, dict) else wire.encode(inner)
        self.frame(messages.Secure.of(self._session.seal(plaintext)))

    def frame(self, message: messages.Message) -> None:
        """A frame from the server, and what comes of it."""
        self.messenger.receive(wire.encode(message))
        self.read()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.messenger.tick()
        self.messenger.flush()
        self.read()

    def take(self) -> list[dict[str, Any]]:
        """The messages that came since the last time."""
        found, self.sent = self.sent, []
        return found

    def happened(self) -> list[events.Event]:
        """The events since the last time."""
        found = list(self.messenger.events)
        self.messenger.events.clear()
        return found

    def read(self) -> None:
        """Take every frame, and do the server's part."""
        while self.messenger.hop.frames:
            message = wire.decode(self.messenger.hop.frames.popleft())
            if self.acknowledging:
                self.messenger.receive(wire.encode(messages.Ack()))
            match message:
                case messages.Connect1() if self.responder is not None:
                    spec = self.responder.answer(message.ciphers)
                    self.messenger.receive(wire.encode(messages.Connect2(ciphers=spec.name)))
                case messages.Connect3() if self.responder is not None:
                    given = Keys(message.data.public_key, message.data.client_random)
                    keys, self.session = self.responder.accept(message.ciphers, given)
                    data = messages.ServerKeys(public_key=Pem(keys.public_key), server_random=Octets32(keys.random))
                    answer = messages.Connect4(ciphers=message.ciphers, data=data)
                    self.messenger.receive(wire.encode(answer))
                case messages.Secure():
                    self._inner(self._session.open(message.box, json.loads))
                case _:
                    raise AssertionError(f"a client sent {message}")

    @property
    def _session(self) -> Session:
        if self.session is None:
            raise AssertionError("no session")
        return self.session

    def _inner(self, inner: dict[str, Any]) -> None:
        if inner["type"] != "list":
            self.sent.append(inner)
            return
        self.lists += 1
        entries = [messages.ListEntry(name=name, id=number) for name, number in self.roster]
        box = self._session.seal(wire.encode(messages.ListReply(data=entries)))
        self.messenger.receive(wire.encode(messages.Secure.of(box)))


class Far:
    """Another client, by hand. Each method gives the message that the server would relay.

    :ivar session: as soon as the four phases are through.
    """

    def __init__(self, desk: Desk, number: int) -> None:
        self.desk = desk
        self.id = number
        self.session: Session | None = None
        self._initiator: Initiator | None = None
        self._responder: Responder | None = None
        self._ends: dict[str, Any] = {"src": number, "dst": desk.messenger.id}

    def phase1(self) -> messages.ClientConnect1:
        """We open."""
        self._initiator = Initiator(End.PEER, specs.SEED_OFFER, self.desk.entropy)
        return messages.ClientConnect1(**self._ends, ciphers=self._initiator.offer())

    def phase2(self, ciphers: str = specs.SEED[0].name) -> messages.ClientConnect2:
        """We choose; without having been asked, too."""
        self._responder = Responder(End.PEER, specs.SEED, self.desk.entropy)
        self._responder.answer([ciphers])
        return messages.ClientConnect2(**self._ends, ciphers=ciphers)

    def phase3(self, ciphers: str = specs.SEED[0].name) -> messages.ClientConnect3:
        """Our keys, as the initiator's."""
        initiator = self._initiator
        offered = initiator is not None and initiator.phase is Phase.OFFERED
        keys = initiator.choose(ciphers) if initiator is not None and offered else self._keys()
        data = messages.PeerKeys(public_key=Pem(keys.public_key), random=Octets32(keys.random))
        return messages.ClientConnect3(**self._ends, ciphers=ciphers, data=data)

    def phase4(self, phase3: dict[str, Any] | None = None) -> messages.ClientConnect4:
        """Our keys, as the responder's: the answer to theirs."""
        keys = self._keys()
        if phase3 is not None and self._responder is not None:
            given = wire.from_client(phase3)
            if not isinstance(given, messages.ClientConnect3):
                raise AssertionError(f"not phase 3: {given}")
            theirs = Keys(given.data.public_key, given.data.random)
            keys, self.session = self._responder.accept(given.ciphers, theirs)
        data = messages.PeerKeys(public_key=Pem(keys.public_key), random=Octets32(keys.random))
        return messages.ClientConnect4(**self._ends, data=data)

    def finish(self, phase4: dict[str, Any]) -> None:
        """Take their phase 4."""
        given = wire.from_client(phase4)
        if not isinstance(given, messages.ClientConnect4) or self._initiator is None:
            raise AssertionError(f"not phase 4: {given}")
        self.session = self._initiator.finish(Keys(given.data.public_key, given.data.random))

    def open(self) -> Far:
        """All four phases, from here."""
        self.desk.give(self.phase1())
        self.desk.give(self.phase3(self.desk.take()[-1]["ciphers"]))
        self.finish(self.desk.take()[-1])
        return self

    def com(self, text: str) -> messages.ClientCom:
        """A text; garbage, if there is no session."""
        session = self.session if self.session is not None else anybody(self.desk.entropy)
        box = session.seal(wire.encode_text(text))
        return messages.ClientCom(**self._ends, data=messages.SealedBox.of(box))

    def ack(self) -> messages.ClientAck:
        """An acknowledgement."""
        return messages.ClientAck(**self._ends)

    def disconnect(self) -> messages.ClientDisconnect:
        """The end of the conversation."""
        return messages.ClientDisconnect(**self._ends)

    def error(self, code: str = "policy") -> messages.Error:
        """A refusal."""
        return messages.Error(**self._ends, code=code)

    def texts(self, sent: list[dict[str, Any]]) -> list[str]:
        """What is in the texts among these messages, for the session that is there."""
        coms = [wire.from_client(inner) for inner in sent if inner["type"] == "client-com"]
        if self.session is None:
            raise AssertionError("no session")
        return [self.session.open(com.data, wire.parse_text) for com in coms if isinstance(com, messages.ClientCom)]

    def _keys(self) -> Keys:
        initiator = Initiator(End.PEER, specs.SEED_OFFER, self.desk.entropy)
        initiator.offer()
        return initiator.choose(specs.SEED[0].name)


def anybody(entropy: Entropy) -> Session:
    """A session that nobody has the other end of."""
    initiator = Initiator(End.PEER, specs.SEED_OFFER, entropy)
    responder = Responder(End.PEER, specs.SEED, entropy)
    agreed = responder.answer(initiator.offer())
    return responder.accept(agreed.name, initiator.choose(agreed.name))[1]


def kinds(sent: list[dict[str, Any]]) -> list[str]:
    """What was sent, as type or as type and phase."""
    return [" ".join(str(inner[key]) for key in ("type", "phase") if key in inner) for inner in sent]


def heard(happened: list[events.Event]) -> list[str]:
    """What the user heard: the event, or the code of what went wrong, or how far a text has come."""
    return [
        str(event.code)
        if isinstance(event, events.Problem)
        else str(event.state)
        if isinstance(event, events.State)
        else type(event).__name__.lower()
        for event in happened
    ]
