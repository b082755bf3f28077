"""The hop to a server that speaks sims/2, at the user's end: connect, then boxes both ways. No reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from sims import frames
from sims.crypto.handshake import Client, Joined
from sims.crypto.hop import Hop
from sims.crypto.identity import Identity, ServerLink
from sims.crypto.payloads import Answer, Offer
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, LocalError, PeerError, malformed
from sims.frames import Box, ClearError, Connect1, Connect2, Connect3, Connect4, OfferData, SealedData
from sims.specs import ModernSpec
from sims.strictjson import Octets, Octets32


class State(Enum):
    """Where the hop is."""

    OFFLINE = auto()
    OFFERED = auto()  # connect 1 is out
    PROVED = auto()  # connect 3 is out
    READY = auto()


class ModernHop:
    """One connection after the other to one server.

    :ivar frames: to be written, without terminators.
    :ivar joined: what the server said in connect 4, while the hop is ready.
    """

    def __init__(
        self,
        identity: Identity,
        link: ServerLink,
        specs: Sequence[ModernSpec],
        *,
        clock: Callable[[], float],
        entropy: ModernEntropy,
    ) -> None:
        self.frames: deque[bytes] = deque()
        self.state = State.OFFLINE
        self.joined: Joined | None = None
        self._identity = identity
        self._link = link
        self._specs = tuple(specs)
        self._clock = clock
        self._entropy = entropy
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"<hop to {self._link.id} {self.state.name.lower()}>"

    @property
    def spec(self) -> ModernSpec | None:
        """What connect agreed on, while the hop is ready."""
        return self.joined.hop.spec if self.joined is not None else None

    def connected(self, name: str, binding: bytes, invite: str | None, epoch: int) -> None:
        """Begin connect on a new connection; the epoch was committed before."""
        self.lost()
        self._client = Client(
            self._identity,
            self._link.id,
            name,
            self._specs,
            binding=binding,
            entropy=self._entropy,
            invite=invite,
            epoch=epoch,
        )
        self.frames.append(self._client.offer(_first_frame))
        self.state = State.OFFERED

    def lost(self) -> None:
        """The connection is gone, and its keys with it."""
        self.frames.clear()
        self._client = self.joined = None
        self.state = State.OFFLINE

    def receive(self, frame: bytes) -> bytes | None:
        """A frame from the server; gives the plaintext of an inner message, if there is one for others.

        :raises PeerError: the connection is to be closed; with the server's own code, where it refuses.
        """
        message = frames.decode(frame)
        client = self._client
        match self.state, message:
            case ((State.OFFERED | State.PROVED), ClearError()):
                # It proves nothing, but a server that says so will not go on.
                raise PeerError(_code(message.data.code), "the server refuses this connection")
            case State.OFFERED, Connect2() if client is not None:
                data = message.data
                answer = Answer(
                    random=data.random,
                    public_key=data.public_key,
                    kem_ciphertext=data.kem_ciphertext,
                    sealed=data.sealed,
                )
                sealed = client.answer(message.ciphers, answer)
                self.frames.append(frames.encode(Connect3(data=SealedData(sealed=Octets(sealed)))))
                self.state = State.PROVED
            case State.PROVED, Connect4() if client is not None:
                self.joined = client.finish(message.data.sealed, self._clock())
                self._client = None
                self.state = State.READY
            case State.READY, Box() if self.joined is not None:
                return self._open(self.joined.hop, message)
            case _:
                raise malformed("a frame that is not due")
        return None

    def seal(self, inner: bytes) -> None:
        """Seal an inner message for the server.

        :raises LocalError: ``unavailable``, when the hop is not ready; ``too-large``.
        """
        if self.joined is None:
            raise LocalError(Code.UNAVAILABLE, "not connected to the server")
        hop = self.joined.hop
        self.frames.append(frames.encode_box(*hop.seal(inner)))
        self.rekey_if_due()

    def rekey_if_due(self) -> None:
        """Begin a rekey, after so many messages or so much time."""
        if self.joined is not None and self.joined.hop.rekey_due(self._clock()):
            self.frames.append(frames.encode_box(*self.joined.hop.begin_rekey(self._entropy)))

    def _open(self, hop: Hop, box: Box) -> bytes | None:
        received = hop.open(box.n, box.ciphertext, self._clock(), self._entropy)
        if received.reply is not None:
            self.frames.append(frames.encode_box(*received.reply))
        self.rekey_if_due()
        return received.plaintext


def _first_frame(ciphers: Sequence[str], data: Offer) -> bytes:
    offer = OfferData(
        version=data.version,
        random=Octets32(data.random),
        public_key=Octets32(data.public_key),
        kem_public_key=frames.KemPublic(data.kem_public_key),
    )
    return frames.encode(Connect1(ciphers=list(ciphers), data=offer))


def _code(text: str) -> Code:
    return Code(text) if text in set(Code) else Code.UNAVAILABLE
