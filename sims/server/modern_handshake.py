"""The server's four phases of connect, as frames: what is answered to each, and the hop behind them."""

from __future__ import annotations

from collections.abc import Sequence

from sims import frames
from sims.crypto import payloads
from sims.crypto.handshake import Claim, Server
from sims.crypto.hop import Hop
from sims.crypto.identity import Identity
from sims.crypto.payloads import Offer
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, malformed
from sims.server.registration import Admitted
from sims.specs import ModernSpec
from sims.strictjson import Octets, Octets32


class Handshake:
    """One connect (protocol.rst, "connect")."""

    def __init__(
        self, identity: Identity, allowed: Sequence[ModernSpec], *, binding: bytes, entropy: ModernEntropy
    ) -> None:
        """Begin; ``binding`` is that of TLS, empty without."""
        self._server = Server(identity, allowed, binding=binding, entropy=entropy)

    def answer(self, raw: bytes, frame: frames.Frame) -> bytes:
        """The frame of phase 2, to that of phase 1, which came as these bytes.

        :raises PeerError: ``malformed``, for any other frame too; ``no-common-spec``.
        """
        if not isinstance(frame, frames.Connect1):
            raise malformed(f"{type(frame).__name__}, where connect 1 is due")
        data = frame.data
        offer = Offer(
            version=data.version,
            random=data.random,
            public_key=data.public_key,
            kem_public_key=data.kem_public_key,
        )
        spec, answer = self._server.answer(raw, frame.ciphers, offer)
        reply = frames.AnswerData(
            random=Octets32(answer.random),
            public_key=Octets32(answer.public_key),
            kem_ciphertext=frames.KemCiphertext(answer.kem_ciphertext),
            sealed=Octets(answer.sealed),
        )
        return frames.encode(frames.Connect2(ciphers=spec.name, data=reply))

    def accept(self, frame: frames.Frame) -> Claim:
        """Who has proved to be there, in phase 3.

        :raises PeerError: ``malformed``, for any other frame too; ``not-authenticated``.
        """
        if not isinstance(frame, frames.Connect3):
            raise malformed(f"{type(frame).__name__}, where connect 3 is due")
        return self._server.accept(frame.data.sealed)

    def refuse(self, code: Code) -> bytes:
        """The frame of phase 4 that says no."""
        return _fourth(self._server.refuse(code))

    def welcome(self, admitted: Admitted, limits: payloads.Limits, *, time: int, now: float) -> tuple[bytes, Hop]:
        """The frame of phase 4 that says yes, and the hop.

        :param time: Unix seconds; ``now`` on a clock that does not go backwards.
        """
        sealed, hop = self._server.welcome(admitted.name, limits, time, now, admitted.epoch)
        return _fourth(sealed), hop


def _fourth(sealed: bytes) -> bytes:
    return frames.encode(frames.Connect4(data=frames.SealedData(sealed=Octets(sealed))))
