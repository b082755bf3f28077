"""Tests of :mod:`sims.crypto.seed`: the four phases, the ratchet, and what must not move when something is refused."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from itertools import product

from cryptography.hazmat.decrepit.ciphers.modes import OFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.trial.unittest import SynchronousTestCase

from sims import wire
from sims.crypto import primitives, seed
from sims.crypto.primitives import P384PrivateKey
from sims.crypto.seed import GRACE, WINDOW, Box, End, Initiator, Keys, Phase, Responder, Session
from sims.errors import Code, LocalError, PeerError, SimsError
from sims.specs import SEED, SEED_OFFER, CipherSpec
from sims.test.builders import PAIRS, CountingEntropy, flipped, refusal, session_pair, snapshot, with_field
from sims.test.foreign_keys import PREFIX, foreign_keys, pem_of

PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1
ORDER_OF_PAGE = "client ‖ server", "receiver ‖ sender"

#: An object, as the server's hop has it, and long enough that a garbled one is never an object again.
PLAINTEXT = b'{"type":"list"}'


def negated(pem: bytes) -> bytes:
    """The public key with the same x-coordinate and the other y-coordinate."""
    point = primitives.p384_from_pem(pem)[1]
    y = int.from_bytes(point[49:], "big")
    return pem_of(PREFIX + point[:49] + (PRIME - y).to_bytes(48, "big"))


def opened_by_the_page(box: Box, spec: CipherSpec, private: P384PrivateKey, salt: bytes) -> bytes | None:
    """What the protocol page makes of a box, with nothing of this package: the plaintext, or None for a wrong MAC."""
    public = load_pem_public_key(box.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    shared = private.exchange(ec.ECDH(), public)
    pseudorandom = hmac.digest(salt, shared, "sha256")
    key = hmac.digest(pseudorandom, b"hkdf-example\x01", "sha256")
    if hmac.digest(key, box.ciphertext, spec.name.rpartition("-")[2]) != box.hash:
        return None
    mode = CTR(box.iv) if "_CTR-" in spec.name else OFB(box.iv)
    cipher = Cipher(algorithms.AES(key), mode).decryptor()
    return cipher.update(box.ciphertext) + cipher.finalize()


def keys_of(name: str) -> Keys:
    """What phase 3 or 4 carries."""
    entropy = CountingEntropy(name)
    return Keys(primitives.p384_to_pem(entropy.p384().public_key()), entropy.octets(32))


def own_pairs(session: Session) -> int:
    """How many pairs a session keeps."""
    return len(session._own)


# --- the four phases --------------------------------------------------------------------------------------------------


def initiator_in(phase: Phase) -> Initiator:
    """An initiator that came to this phase by itself."""
    initiator = Initiator(End.PEER, SEED_OFFER, CountingEntropy("initiator"))
    if phase is not Phase.START:
        initiator.offer()
    if phase in (Phase.KEYED, Phase.DONE):
        initiator.choose(SEED[0].name)
    if phase is Phase.DONE:
        initiator.finish(keys_of("responder"))
    assert initiator.phase is phase
    return initiator


def responder_in(phase: Phase) -> Responder:
    """A responder that came to this phase by itself; KEYED it never reaches, and is put there."""
    responder = Responder(End.PEER, SEED, CountingEntropy("responder"))
    if phase is not Phase.START:
        responder.answer([SEED[1].name])
    if phase is Phase.DONE:
        responder.accept(SEED[1].name, keys_of("initiator"))
    if phase is Phase.KEYED:
        responder.phase = phase
    assert responder.phase is phase
    return responder


GOOD = keys_of("good")
SHORT = GOOD._replace(random=bytes(31))
FOREIGN = GOOD._replace(public_key=foreign_keys()["secp256r1"])

INITIATOR_INPUTS: dict[str, Callable[[Initiator], object]] = {
    "offer": lambda initiator: initiator.offer(),
    "an offered choice": lambda initiator: initiator.choose(SEED[1].name),
    "another choice": lambda initiator: initiator.choose(SEED[2].name),
    "an unknown choice": lambda initiator: initiator.choose("ECDHE-AES256_GCM-SHA384"),
    "keys": lambda initiator: initiator.finish(GOOD),
    "a short random": lambda initiator: initiator.finish(SHORT),
    "a foreign key": lambda initiator: initiator.finish(FOREIGN),
}
RESPONDER_INPUTS: dict[str, Callable[[Responder], object]] = {
    "an offer": lambda responder: responder.answer([SEED[1].name, SEED[0].name]),
    "nothing in common": lambda responder: responder.answer(["ECDHE-AES256_GCM-SHA384"]),
    "keys": lambda responder: responder.accept(SEED[1].name, GOOD),
    "another spec": lambda responder: responder.accept(SEED[0].name, GOOD),
    "a short random": lambda responder: responder.accept(SEED[1].name, SHORT),
    "a foreign key": lambda responder: responder.accept(SEED[1].name, FOREIGN),
}

_MALFORMED = (PeerError, Code.MALFORMED)
_NO_COMMON_SPEC = (PeerError, Code.NO_COMMON_SPEC)
_TWICE = (LocalError, Code.INTERNAL)
_OUT_OF_ORDER = {
    "an offered choice": _MALFORMED,
    "another choice": _MALFORMED,
    "an unknown choice": _MALFORMED,
    "keys": _MALFORMED,
    "a short random": _MALFORMED,
    "a foreign key": _MALFORMED,
}
_RESPONDER_OUT_OF_ORDER = {name: _MALFORMED for name in RESPONDER_INPUTS}

#: What every input does in every phase: the next phase, or the error that leaves everything as it was.
INITIATOR_TABLE: dict[Phase, dict[str, Phase | tuple[type[SimsError], Code]]] = {
    Phase.START: {**_OUT_OF_ORDER, "offer": Phase.OFFERED},
    Phase.OFFERED: {
        **_OUT_OF_ORDER,
        "offer": _TWICE,
        "an offered choice": Phase.KEYED,
        "another choice": _NO_COMMON_SPEC,
        "an unknown choice": _NO_COMMON_SPEC,
    },
    Phase.KEYED: {**_OUT_OF_ORDER, "offer": _TWICE, "keys": Phase.DONE},
    Phase.DONE: {**_OUT_OF_ORDER, "offer": _TWICE},
}
RESPONDER_TABLE: dict[Phase, dict[str, Phase | tuple[type[SimsError], Code]]] = {
    Phase.START: {**_RESPONDER_OUT_OF_ORDER, "an offer": Phase.OFFERED, "nothing in common": _NO_COMMON_SPEC},
    Phase.OFFERED: {**_RESPONDER_OUT_OF_ORDER, "keys": Phase.DONE, "another spec": _NO_COMMON_SPEC},
    Phase.KEYED: _RESPONDER_OUT_OF_ORDER,
    Phase.DONE: _RESPONDER_OUT_OF_ORDER,
}


class Phases(SynchronousTestCase):
    def test_of_an_initiator_take_every_input_as_the_table_says(self) -> None:
        for phase, (name, give) in product(Phase, INITIATOR_INPUTS.items()):
            self.check(initiator_in(phase), give, INITIATOR_TABLE[phase][name], f"{name} in {phase}")

    def test_of_a_responder_take_every_input_as_the_table_says(self) -> None:
        for phase, (name, give) in product(Phase, RESPONDER_INPUTS.items()):
            self.check(responder_in(phase), give, RESPONDER_TABLE[phase][name], f"{name} in {phase}")

    def check[H: (Initiator, Responder)](
        self, handshake: H, give: Callable[[H], object], expected: Phase | tuple[type[SimsError], Code], what: str
    ) -> None:
        before = snapshot(handshake)
        if isinstance(expected, Phase):
            give(handshake)
            self.assertIs(handshake.phase, expected, what)
            self.assertNotEqual(snapshot(handshake), before, what)
        else:
            kind, code = expected
            try:
                self.assertIs(refusal(kind, give, handshake).code, code, what)
            except AssertionError as error:
                self.fail(f"{what}: {error}")
            self.assertEqual(snapshot(handshake), before, what)
