"""Sessions and handshakes of the seed in every state, and what their tests have in common."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from sims import wire
from sims.crypto import primitives
from sims.crypto.seed import Box, End, Initiator, Keys, Phase, Responder, Session
from sims.errors import Code, PeerError
from sims.specs import SEED, SEED_OFFER
from sims.test.builders import (
    CountingEntropy,
    refusal,
    snapshot,
)

#: An object, as the server's hop has it, and long enough that a garbled one is never an object again.
PLAINTEXT = b'{"type":"list"}'


def keys_of(name: str) -> Keys:
    """What phase 3 or 4 carries."""
    entropy = CountingEntropy(name)
    return Keys(primitives.p384_to_pem(entropy.p384().public_key()), entropy.octets(32))


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


def own_pairs(session: Session) -> int:
    """How many pairs a session keeps."""
    return len(session._own)


def entropy_of(session: Session) -> CountingEntropy:
    """The randomness that a session was given."""
    entropy = session._entropy
    assert isinstance(entropy, CountingEntropy)
    return entropy


def refused(
    case: SynchronousTestCase,
    session: Session,
    box: Box,
    code: Code,
    what: str = "",
    decode: Callable[[bytes], object] = wire.parse,
) -> None:
    """The box is refused with this code, and the session is as it was."""
    before = snapshot(session)
    try:
        error = refusal(PeerError, session.open, box, decode)
    except AssertionError:
        case.fail(f"taken: {what}")
    case.assertIs(error.code, code, what)
    case.assertEqual(snapshot(session), before, what)
