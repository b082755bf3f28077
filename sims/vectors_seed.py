"""A captured session of the seed, with all its keys: every value worked out again, and the session run once more.

From the private keys and the frames alone, all else is derived and compared with what the file says; what has no
other source in the file is compared with what the protocol says. If that holds, both ends of every hop are played by
this package's own implementation, which draws the keys, randoms and ivs of the transcript.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter, defaultdict, deque
from functools import lru_cache
from typing import Any, NamedTuple

from sims import messages as m
from sims import specs, wire
from sims.crypto import primitives, seed
from sims.crypto.primitives import P384PrivateKey
from sims.crypto.seed import BoxLike, Derivation, Keys
from sims.errors import malformed
from sims.specs import CipherSpec
from sims.vectors_report import Part, UnusableError, plain
from sims.vectors_seed_session import SERVER, Said, Sealed, Step, keys_of, replay

_HKDF = {"hash": "SHA-256", "info": "hkdf-example", "length": 32}
_HASHES = {"sha256": "SHA-256", "sha384": "SHA-384"}
_FROM_CLIENT = "client random (new) || server random (last)"
_FROM_SERVER = "client random (last) || server random (new)"
_FROM_PEER = "receiver random (last) || sender random (new)"
#: What the first message of an action is, by the first word of the action; other words are free text.
_CAUSED = {
    "connect": "connect 1",
    "list": "list",
    "client-connect": "client-connect 1",
    "send": "client-com",
    "disconnect": "client-disconnect",
}


class _Key(NamedTuple):
    label: str
    owner: str
    private_pem: str
    public_pem: bytes


def check(document: Part) -> None:
    """Compare everything in a transcript, and run it as a session if all of it holds.

    Otherwise the session is left out: it would fail for the same reasons, and say less about where.
    """
    values = Values(document)
    if not document.report.differences:
        replay(document.report, values.privates, values.steps)


# --- pure functions ---------------------------------------------------------------------------------------------------
# They are remembered because the same keys and frames are asked for again and again. These are the keys of test files:
# there is no harm in keeping them.


@lru_cache(maxsize=1024)
def _pair(pem: str) -> tuple[P384PrivateKey, bytes]:
    """A private key, from the one PEM text that it has, and the PEM text of its public half."""
    try:
        private = primitives.p384_private_from_pem(pem.encode())
    except ValueError:
        raise UnusableError("private_key_pem: not the PKCS #8 text of a secp384r1 key") from None
    if primitives.p384_private_to_pem(private) != pem.encode():
        raise UnusableError("private_key_pem: not the one PKCS #8 text that this key has")
    return private, primitives.p384_to_pem(private.public_key())


@lru_cache(maxsize=4096)
def _derive(private_pem: str, public_pem: bytes, salt: tuple[bytes, bytes]) -> Derivation:
    return seed.derive(_pair(private_pem)[0], primitives.p384_from_pem(public_pem)[0], *salt)


@lru_cache(maxsize=4096)
def _unsealed(key: bytes, spec: CipherSpec, iv: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
    """The MAC and the plaintext."""
    return primitives.mac(key, ciphertext, spec.hash), primitives.aes_stream(key, iv, spec.mode, ciphertext)


@lru_cache(maxsize=1024)
def _decoded(frame: str) -> m.Message:
    """The message in a frame that holds nothing else, so that no character of it goes unread."""
    value = wire.parse(frame.encode())
    message = wire.message(value)
    if frame not in (json.dumps(value), json.dumps(value, separators=(",", ":"))):
        raise malformed("a frame that is not spelled as programs do")
    if plain(wire.parse(wire.encode(message))) != plain(value):
        raise malformed("a frame that holds something beside its message")
    return message


# --- value by value ---------------------------------------------------------------------------------------------------


class Values:
    """Goes through a transcript and compares its values.

    :ivar privates: the private keys by the PEM text of their public halves.
    :ivar steps: the session, to be run.
    """

    def __init__(self, document: Part) -> None:
        self._same = document.report.same
        self._spec = specs.by_names([document.take("suite", str)])[0]
        self._check_algorithms(document)
        clients = document.part("clients")
        self._ids = {name: clients.take(name, int) for name in clients.values}
        self._names = {number: name for name, number in self._ids.items()}
        if not self._ids or SERVER in self._ids or len(self._ids) != len(self._names):
            raise UnusableError("clients: there is none, or one called server, or two have the same id")
        self.privates: dict[bytes, P384PrivateKey] = {}
        self.steps: list[Step] = []
        self._labels: dict[str, _Key] = {}
        self._keys: dict[bytes, _Key] = {}  # by the PEM text of their public halves
        self._randoms: dict[bytes, bytes] = {}  # sent so far, by the public key that they went with
        self._offers: dict[str, list[str]] = {}
        self._phase3: dict[tuple[str, str], Keys] = {}
        self._unanswered: Counter[str] = Counter()
        self._under_way: defaultdict[tuple[str, str], deque[tuple[dict[str, Any], Said | None]]] = defaultdict(deque)
        self._sent: dict[int, tuple[str, str]] = {}  # message number -> sender, what it is

        report = document.report
        for label, values in document.take("keys", dict).items():
            with report.attempt(f"key {label}"):
                self._key(label, Part(report, f"key {label}", values))
        for number, values in enumerate(document.take("messages", list), 1):
            with report.attempt(f"message {number}"):
                self._message(number, Part(report, f"message {number}", values))
        last = 0
        for number, values in enumerate(document.take("actions", list), 1):
            with report.attempt(f"action {number}"):
                last = self._action(Part(report, f"action {number}", values), last)
        for name in sorted(self._ids.keys() - self._offers.keys()):
            report.fault(f"the file, clients.{name}: never connects")

    def _check_algorithms(self, document: Part) -> None:
        document.check("suite", self._spec.name)
        document.check("frame_terminator", wire.TERMINATOR.decode())
        document.check("curve", "secp384r1")
        document.check("cipher", f"AES-256-{self._spec.mode}, 16-byte initial counter block = iv")
        document.check("mac", f"HMAC-{_HASHES[self._spec.hash]}, key = final_secret, over the ciphertext bytes")
        hkdf = document.part("hkdf")
        for name, expected in _HKDF.items():
            hkdf.check(name, expected)

    def _key(self, label: str, part: Part) -> None:
        owner, pem = part.take("owner", str), part.take("private_key_pem", str)
        if owner not in (SERVER, *self._ids) or not label.startswith(f"{owner}-"):
            raise UnusableError("owner: neither a client nor the server, or not the one that the label names")
        private, public = _pair(pem)
        if public in self._keys:
            raise UnusableError(f"private_key_pem: the same as that of {self._keys[public].label}")
        self.privates[public] = private
        self._keys[public] = self._labels[label] = _Key(label, owner, pem, public)
        part.check("public_key_field", b64encode(public).decode())

    def _action(self, part: Part, last: int) -> int:
        number = part.take("before_message", int)
        sender, kind = self._sent.get(number, ("", ""))
        word = part.take("action", str).partition(" ")[0]
        if number <= last:
            raise UnusableError("before_message: not after that of the action before")
        part.check("actor", sender)
        self._same(f"{part.place}, what message {number} is", _CAUSED.get(word, kind), kind)
        return number

    def _message(self, number: int, part: Part) -> None:
        part.check("n", number)
        ends = part.take("from", str), part.take("to", str)
        up = ends[1] == SERVER
        client = ends[0] if up else ends[1]
        if client not in self._ids or SERVER not in ends:
            raise UnusableError("from, to: not a client and the server")
        self._unanswered[client] += up  # the server answers everything with an ack
        message = _decoded(part.take("frame", str))
        part.check("type", message.__struct_config__.tag)
        if isinstance(message, m.Ack):
            if up or not self._unanswered[client]:
                raise UnusableError("an ack that is not the server's answer to anything")
            self._unanswered[client] -= 1
            return
        if isinstance(message, m.Secure):
            kind = self._secure(part, ends, client, message)
        else:
            kind = f"connect {message.phase}"
            self._connect(part, ends, client, message)
        self._sent[number] = ends[0], kind

    def _connect(
        self, part: Part, ends: tuple[str, str], client: str, message: m.Connect1 | m.Connect2 | m.Connect3 | m.Connect4
    ) -> None:
        part.check("phase", message.phase)
        self._same(f"{part.place}, who sends it", client if message.phase % 2 else SERVER, ends[0])
        if isinstance(message, m.Connect1 | m.Connect3):
            self._same(f"{part.place}, name in the frame", client, message.name)
            self._same(f"{part.place}, id in the frame", self._ids[client], message.id)
        if isinstance(message, m.Connect1):
            self._offers[client] = message.ciphers
        else:
            self._same(f"{part.place}, ciphers in the frame", self._spec.name, message.ciphers)
        if isinstance(message, m.Connect1 | m.Connect2):
            self._same(f"{part.place}, data in the frame", {}, message.data)
        else:
            keys = keys_of(message)
            key = self._fresh(ends[0], keys)
            part.check("key", key.label)
            part.check("random", keys.random)
            if isinstance(message, m.Connect3):
                self._phase3[ends] = keys
            else:
                self._handshake(part.part("handshake"), ends, key, keys, "client_random || server_random")
        self._both(part.place, ends, message)

    def _secure(self, part: Part, ends: tuple[str, str], client: str, message: m.Secure) -> str:
        up = ends[0] == client
        sealed = self._sealed(part.part("secure"), ends, message.box, _FROM_CLIENT if up else _FROM_SERVER)
        self._both(part.place, ends, sealed)
        value = wire.parse(sealed.plaintext)
        inner: m.InnerMessage = wire.from_client(value) if up else wire.from_server(value)
        kind = str(inner.__struct_config__.tag)
        part.check("inner_type", kind)
        if isinstance(inner, m.ListReply):
            for entry in inner.data:
                self._same(f"{part.place}, id of {entry.name} in the list", self._ids.get(entry.name), entry.id)
        if isinstance(inner, m.ClientConnect):
            kind = f"{kind} {inner.phase}"
            if up or "inner_phase" in part.values:
                part.check("inner_phase", inner.phase)
        if isinstance(inner, m.Relayed):
            talk = self._names.get(wire.as_id(inner.src), ""), self._names.get(wire.as_id(inner.dst), "")
            if not all(talk) or talk[0] == talk[1] or talk[0 if up else 1] != client:
                raise UnusableError("src and dst of the plaintext are not those of this client and another")
            if up:
                self._from_client(part, talk, value, inner)
            else:
                self._to_client(part, talk, value)
        return kind

    def _from_client(self, part: Part, talk: tuple[str, str], value: dict[str, Any], inner: m.Relayed) -> None:
        said: Said | None = inner if isinstance(inner, m.ClientConnect) else None
        if isinstance(inner, m.ClientConnect1):
            # The programs offer the same to everybody. No MAC covers a connect 1, so this is what tells a changed one.
            self._same(f"{part.place}, ciphers of the plaintext", self._offers.get(talk[0]), inner.ciphers)
        if isinstance(inner, m.ClientConnect2 | m.ClientConnect3):
            self._same(f"{part.place}, ciphers of the plaintext", self._spec.name, inner.ciphers)
        if isinstance(inner, m.ClientConnect3 | m.ClientConnect4):
            keys = keys_of(inner)
            key = self._fresh(talk[0], keys)
            if isinstance(inner, m.ClientConnect3):
                self._phase3[talk] = keys
            else:
                handshake = part.part("handshake")
                initiator = self._handshake(handshake, talk, key, keys, "initiator random || responder random")
                handshake.check("initiator_key", initiator.label)
                handshake.check("responder_key", key.label)
        if isinstance(inner, m.ClientCom):
            com = part.part("com")
            said = self._sealed(com, talk, inner.data, _FROM_PEER)
            com.check("text", wire.parse_text(said.plaintext))
        self._under_way[talk].append((value, said))
        if said:
            self.steps.append(Step(part.place, talk, False, said))

    def _to_client(self, part: Part, talk: tuple[str, str], value: dict[str, Any]) -> None:
        if not self._under_way[talk]:
            raise UnusableError("relays what nobody has sent")
        sent, said = self._under_way[talk].popleft()
        self._same(f"{part.place}, what is relayed", sent, value)
        if said:
            self.steps.append(Step(part.place, talk[::-1], True, said))

    def _both(self, place: str, ends: tuple[str, str], said: Said) -> None:
        self.steps += Step(place, ends, False, said), Step(place, ends[::-1], True, said)

    def _fresh(self, sender: str, keys: Keys) -> _Key:
        """Whose key it is that a frame carries for the first time, with its random."""
        key = self._keys.get(keys.public_key)
        if key is None or key.owner != sender or key.public_pem in self._randoms:
            raise UnusableError("the public key in the frame is not among the keys, or not a fresh one of the sender")
        self._randoms[keys.public_key] = keys.random
        return key

    def _handshake(self, part: Part, ends: tuple[str, str], key: _Key, keys: Keys, salt_is: str) -> _Key:
        """Phase 4: what the handshake itself could derive. Gives the initiator's key."""
        theirs = self._phase3.pop(ends[::-1], None)
        if theirs is None:
            raise UnusableError("phase 4 without phase 3")
        self._derived(part, _derive(key.private_pem, theirs.public_key, (theirs.random, keys.random)), salt_is)
        return self._keys[theirs.public_key]

    def _sealed(self, part: Part, ends: tuple[str, str], box: BoxLike, salt_is: str) -> Sealed:
        own = self._fresh(ends[0], Keys(box.public_key, box.random))
        part.check("sender_new_key", own.label)
        last = self._labels.get(part.take("receiver_last_key", str))
        if last is None or last.owner != ends[1] or last.public_pem not in self._randoms:
            raise UnusableError("receiver_last_key: not the label of a key that the receiver has sent")
        random = self._randoms[last.public_pem]
        part.check("sender_new_random", box.random)
        part.check("receiver_last_random", random)
        halves = (box.random, random) if salt_is == _FROM_CLIENT else (random, box.random)
        derivation = _derive(own.private_pem, last.public_pem, halves)
        self._derived(part, derivation, salt_is)
        part.check("iv", box.iv)
        part.check("ciphertext", box.ciphertext)
        part.check("mac", box.hash)
        mac, plaintext = _unsealed(derivation.key, self._spec, box.iv, box.ciphertext)
        self._same(f"{part.place}, hash in the frame", mac, box.hash)
        part.check("plaintext", plaintext.decode("utf-8", "backslashreplace"))
        return Sealed(box, plaintext, last.public_pem)

    def _derived(self, part: Part, derivation: Derivation, salt_is: str) -> None:
        part.check("master_secret", derivation.shared)
        part.check("salt", derivation.salt)
        part.check("salt_is", salt_is)
        part.check("final_secret", derivation.key)
