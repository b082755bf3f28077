"""Tests of :mod:`sims.frames`: any bytes are a frame or refused with a code, and every frame comes back as it was."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import frames
from sims.errors import Code, PeerError
from sims.frames import (
    MAX_CIPHER_NAME,
    MAX_CIPHERS,
    MAX_FRAME,
    AnswerData,
    Box,
    ClearError,
    Connect1,
    Connect2,
    Connect3,
    Connect4,
    KemCiphertext,
    KemPublic,
    OfferData,
    SealedData,
)
from sims.strictjson import Octets, Octets32


def text_of(data: bytes) -> str:
    return b64encode(data).decode()


OFFER: dict[str, Any] = {
    "version": 2,
    "random": text_of(bytes(32)),
    "public_key": text_of(bytes(32)),
    "kem_public_key": text_of(bytes(1184)),
}
CONNECT1: dict[str, Any] = {"type": "connect", "phase": 1, "name": "", "id": "", "ciphers": ["x"], "data": OFFER}
ANSWER: dict[str, Any] = {
    "random": text_of(bytes(32)),
    "public_key": text_of(bytes(32)),
    "kem_ciphertext": text_of(bytes(1088)),
    "sealed": text_of(b"sealed"),
}
CONNECT2: dict[str, Any] = {"type": "connect", "phase": 2, "ciphers": "x", "data": ANSWER}
SECURE: dict[str, Any] = {"type": "secure", "sa-data": {"n": 0}, "payload": {"ciphertext": text_of(b"box")}}


def encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class RoundTripTests(SynchronousTestCase):
    def test_connect(self) -> None:
        """Each phase, and the error in the clear."""
        random, key = Octets32(b"r" * 32), Octets32(b"k" * 32)
        offer = OfferData(version=2, random=random, public_key=key, kem_public_key=KemPublic(b"p" * 1184))
        answer = AnswerData(
            random=random, public_key=key, kem_ciphertext=KemCiphertext(b"c" * 1088), sealed=Octets(b"sealed")
        )
        for frame in (
            Connect1(ciphers=["a", "b"], data=offer),
            Connect2(ciphers="a", data=answer),
            Connect3(data=SealedData(sealed=Octets(b"three"))),
            Connect4(data=SealedData(sealed=Octets(b""))),
        ):
            found = frames.decode(frames.encode(frame))
            self.assertEqual((type(found), found), (type(frame), frame))
        refused = frames.decode(frames.encode_error(Code.NO_COMMON_SPEC))
        self.assertIsInstance(refused, ClearError)
        self.assertEqual(json.loads(frames.encode_error(Code.POLICY)), {"type": "error", "data": {"code": "policy"}})

    def test_boxes(self) -> None:
        """Whichever way they are read, and whatever room stands between."""
        for n, ciphertext in ((0, b""), (2**64 - 1, bytes(200)), (7, b"x"), (8, b"xy"), (9, b"xyz")):
            frame = frames.encode_box(n, ciphertext)
            self.assertEqual(frames.decode(frame), Box(n, ciphertext))
            self.assertEqual(frames._read_box(frame), Box(n, ciphertext) if n < 2**63 else None)
            self.assertEqual(frames.decode(json.dumps(json.loads(frame), indent=1).encode()), Box(n, ciphertext))

    def test_are_the_seeds_frames(self) -> None:
        """JSON with these keys, byte fields in base64, nothing that would end a frame."""
        self.assertEqual(json.loads(frames.encode_box(0, b"box")), SECURE)
        self.assertNotIn(frames.TERMINATOR, frames.encode_box(0, b"\n\n"))


class RefusalTests(SynchronousTestCase):
    def refused(self, data: bytes, code: Code = Code.MALFORMED) -> None:
        with self.assertRaises(PeerError) as caught:
            frames.decode(data)
        self.assertEqual(caught.exception.code, code, data[:100])

    def test_bounds(self) -> None:
        """Of a frame, of its depth, of what is offered, of a number."""
        self.refused(b" " * (MAX_FRAME + 1), Code.TOO_LARGE)
        self.refused(b"[" * 50_000)
        for ciphers in (["x"] * (MAX_CIPHERS + 1), ["x" * (MAX_CIPHER_NAME + 1)]):
            self.refused(encoded(CONNECT1 | {"ciphers": ciphers}))
        self.assertIsInstance(
            frames.decode(encoded(CONNECT1 | {"ciphers": ["x" * MAX_CIPHER_NAME] * MAX_CIPHERS})), Connect1
        )
        for n in (2**64, -1, 1.5, "0", None, True):
            self.refused(encoded(SECURE | {"sa-data": {"n": n}}))
        self.refused(encoded({"type": "error", "data": {"code": "x" * 65}}))

    def test_no_frame(self) -> None:
        for value in (None, 1, "connect", [], [CONNECT1], {}, {"type": "list"}, {"type": None}, {"type": ["secure"]}):
            self.refused(encoded(value))
        for data in (b"", b"{", b"\xff", b'{"type":"secure"}{}', b'{"type":NaN}', b"\0"):
            self.refused(data)

    def test_phases(self) -> None:
        for phase in (0, 5, "1", 1.0, True, None, [1]):
            self.refused(encoded(CONNECT1 | {"phase": phase}))
        self.refused(encoded({key: value for key, value in CONNECT1.items() if key != "phase"}))
        self.refused(encoded(CONNECT1 | {"phase": 2}))

    def test_fields(self) -> None:
        """Each that is missing, of another type or of another size."""
        for frame, field in ((CONNECT1, "ciphers"), (CONNECT1, "data"), (CONNECT2, "ciphers"), (SECURE, "payload")):
            self.refused(encoded({key: value for key, value in frame.items() if key != field}))
        for bad in (None, 1, "!", text_of(bytes(31)), text_of(bytes(33)), text_of(bytes(32))[:-1], [0] * 32):
            self.refused(encoded(CONNECT1 | {"data": OFFER | {"random": bad}}))
            self.refused(encoded(CONNECT2 | {"data": ANSWER | {"public_key": bad}}))
        for field, size in (("kem_public_key", 1183), ("kem_public_key", 1185), ("public_key", 0)):
            self.refused(encoded(CONNECT1 | {"data": OFFER | {field: text_of(bytes(size))}}))
        for size in (1087, 1089):
            self.refused(encoded(CONNECT2 | {"data": ANSWER | {"kem_ciphertext": text_of(bytes(size))}}))
        self.refused(encoded(CONNECT1 | {"data": OFFER | {"version": "2"}}))
        self.refused(encoded(CONNECT2 | {"ciphers": ["x"]}))

    def test_read_one_way_only(self) -> None:
        """No key twice, and of base64 the one text that the bytes have: two parsers read the same."""
        frame = encoded(SECURE)
        for doubled in (
            frame.replace(b'{"n":0}', b'{"n":0,"n":1}'),
            frame.replace(b'"type":"secure"', b'"type":"secure","type":"secure"'),
            frame[:-1] + b',"payload":{"ciphertext":""}}',
        ):
            self.refused(doubled)
        for loose in ("Ym9==", "Yg=", "Yh==", "Ym9=", "Ym9v\n", "Ym9v ", "Ym-_", "Ym9vYg"):
            self.refused(encoded(SECURE | {"payload": {"ciphertext": loose}}))
        bits_behind_an_escape = encoded(SECURE | {"payload": {"ciphertext": "Y?=="}}).replace(b"?", b"\\u005A")
        self.refused(bits_behind_an_escape)
        self.assertEqual(frames.decode(bits_behind_an_escape.replace(b"u005A", b"u0067")), Box(0, b"b"))
        for good in ("", "Yg==", "Ym8=", "Ym9v"):
            self.assertIsInstance(frames.decode(encoded(SECURE | {"payload": {"ciphertext": good}})), Box)

    def test_says_nothing_of_what_came(self) -> None:
        """Neither in errors nor in reprs."""
        with self.assertRaises(PeerError) as caught:
            frames.decode(encoded(CONNECT1 | {"ciphers": {"secret": "secret"}}))
        self.assertNotIn("secret", str(caught.exception))
        offer = frames.decode(encoded(CONNECT1 | {"name": "secret"}))
        self.assertNotIn("secret", repr(offer))
