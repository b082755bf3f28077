"""What hostile clients may try before they have a session."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sims import messages
from sims.server import limits
from sims.server.connection import State
from sims.test.clients import Raw
from sims.test.hostile import (
    CLOSED,
    SPEC,
    Act,
    Outcome,
    ServerTestCase,
    base64,
    forged,
    fresh_keys,
    outcome,
)
from sims.test.network import cut
from sims.wire import MAX_FRAME_BEFORE_SESSION


class BeforeSessionTests(ServerTestCase):
    """Whatever is wrong before there is a session ends it, without a word."""

    def frames(self, *frames: bytes | dict[str, Any] | messages.Message) -> Act:
        """Send these."""

        def act(raw: Raw) -> None:
            for frame in frames:
                raw.send(frame)

        return act

    def test_garbage(self) -> None:
        cases: dict[str, tuple[Act, Outcome]] = {}
        for frame in (
            *(b"", b"\x00\xff\xfe", b"hello", b"[]", b"1", b'"ack"', b"null", b"true", b"{", b"{}", b"{]"),
            *(b'{"type":1}', b'{"type":null}', b'{"type":["connect"]}', b'{"type":{"connect":1}}', b'{"type":"ack",}'),
            *(b'{"type":"connect","type":"connect"}', b'{"type":"ack"}x', b"\xef\xbb\xbf{}", b'{"type":"\\ud800"}'),
            *(b'{"type":"connect","phase":NaN}', b'{"type":"connect","phase":1,"id":-Infinity}'),
            b"[" * 4096 + b"]" * 4096,
            b'{"a":' * 1600,
        ):
            cases[repr(frame[:60])] = (self.frames(frame), CLOSED)
        self.meet(cases)

    def test_connect_1(self) -> None:
        good = {"type": "connect", "phase": 1, "name": "m", "id": 666, "ciphers": [SPEC], "data": {}}
        bad: dict[str, list[Any]] = {
            "phase": [0, 5, "1", 1.5, True, None, [1]],
            "name": [None, 1, [], "n" * 129],
            "id": ["666", 666.5, None, True, 10**18, -(10**18), 10**400],
            "ciphers": [
                *(SPEC, None, {}, [1], [None], [SPEC] * 33, ["x" * 65]),
                # no common spec
                *([], ["ECDHE-AES128_CBC-SHA256"], [SPEC.lower()], [SPEC + " "]),
            ],
            "data": [1],
        }
        changes = [{field: value} for field, values in bad.items() for value in values]
        cases = {f"{change}"[:60]: (self.frames({**good, **change}), CLOSED) for change in changes}
        for field in ("type", "phase", "name", "id", "ciphers"):
            missing = {key: value for key, value in good.items() if key != field}
            cases[f"no {field}"] = (self.frames(missing), CLOSED)
        cases["twice"] = (self.frames(good, good), CLOSED)
        cases["id in use"] = (self.frames({**good, "id": 1}), CLOSED)
        self.meet(cases)
        # The same without a change is taken.
        self.meet({"good": (lambda raw: (self.frames(good)(raw), raw.stream.loseConnection()), CLOSED)})

    def test_out_of_order(self) -> None:
        def secure(raw: Raw) -> None:
            raw.send(forged(raw))

        self.meet(
            {
                "phase 3 first": (lambda raw: raw.send(raw.keying(fresh_keys(raw))), CLOSED),
                "phase 2": (self.frames(messages.Connect2(ciphers=SPEC)), CLOSED),
                "secure first": (secure, CLOSED),
                "list in the clear": (self.frames({"type": "list"}), CLOSED),
            }
        )
        self.meet({"secure": (secure, CLOSED), "list": (self.frames({"type": "list"}), CLOSED)}, greeted=True)

    def test_too_long(self) -> None:
        whole = b'{"type":"ack","x":"' + b"x" * (MAX_FRAME_BEFORE_SESSION - 21) + b'"}'
        self.assertEqual(len(whole), MAX_FRAME_BEFORE_SESSION)
        raw = Raw(self.network)
        raw.send(whole)
        self.assertEqual(outcome(raw), (State.GREETING, []))
        raw.send(whole + b" ")
        self.assertEqual(outcome(raw), CLOSED)
        self.check_others("too long")

    def test_without_an_end(self) -> None:
        raw = Raw(self.network)
        most = 0

        def watched() -> bool:
            nonlocal most
            most = max(most, len(raw.server_end._buffer))
            return raw.server_end not in self.network.server.connections

        raw.stream.write(b"x" * 4 * 1024 * 1024)
        self.network.run_until(watched)
        self.assertLessEqual(most, MAX_FRAME_BEFORE_SESSION + 64 * 1024)
        self.check_members("4 MiB")
        self.check_others("4 MiB")

    def test_handshake_too_slow(self) -> None:
        def half(raw: Raw) -> None:
            raw.stream.write(b'{"type":"connect"')

        for name, act in {
            "nothing": lambda raw: None,
            "greeted": lambda raw: raw.send(raw.greeting()),
            "half a frame": half,
            "acks only": lambda raw: [raw.send(messages.Ack()) for _ in range(100)],
        }.items():
            raw = Raw(self.network)
            act(raw)
            self.network.run_for(limits.HANDSHAKE_TIMEOUT - 0.01)
            self.assertFalse(raw.closed, name)
            self.network.run_for(0.02)
            self.assertTrue(raw.closed, name)
            self.check_members(name)
            self.check_others(name)

    def test_id_taken_between_the_phases(self) -> None:
        first, second = Raw(self.network), Raw(self.network)
        first.send(first.greeting())
        second.handshake()
        first.send(first.keying(fresh_keys(first)))
        self.assertEqual(outcome(first), CLOSED)
        second.say({"type": "list"})
        self.assertEqual([inner["type"] for inner in second.heard()], ["list"])
        self.check_members("second", second.id)
        self.check_others("id taken")

    def test_vanishes(self) -> None:
        def half(raw: Raw) -> None:
            raw.stream.write(b'{"type":"conn')
            self.network.settle()

        vanish: list[Act] = [
            lambda raw: cut(raw.server_end),
            lambda raw: raw.stream.abortConnection(),
            lambda raw: raw.stream.loseConnection(),
        ]
        for number, how in enumerate(vanish):
            for name, act in {
                "at once": lambda raw: None,
                "greeted": lambda raw: raw.send(raw.greeting()),
                "in a frame": half,
                "in the session": lambda raw: raw.handshake(),
                "in a frame of the session": lambda raw: half(raw.handshake()),
            }.items():
                raw = Raw(self.network)
                act(raw)
                how(raw)
                self.network.settle()
                self.check_members(f"{name} {number}")
            self.check_others(f"{number}")
        self.assertEqual([call for call in self.network.clock.getDelayedCalls() if call.getTime() > 10], [])


class KeysTests(ServerTestCase):
    """The keys of phase 3, with those of secp384r1 that they are meant to be."""

    real_keys = True

    def test_connect_3(self) -> None:
        def head(raw: Raw) -> dict[str, Any]:
            return {"type": "connect", "phase": 3, "name": raw.name, "id": raw.id, "ciphers": SPEC}

        def change(**fields: Any) -> Act:
            def act(raw: Raw) -> None:
                keys = fresh_keys(raw)
                frame: dict[str, Any] = {
                    **head(raw),
                    "data": {"public_key": base64(keys.public_key), "client_random": base64(keys.random)},
                }
                for name, value in fields.items():
                    (frame["data"] if name in frame["data"] else frame)[name] = value
                raw.send(frame)

            return act

        p256 = ec.generate_private_key(ec.SECP256R1()).public_key()
        other_curve = p256.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        pem = fresh_keys(Raw(self.network)).public_key
        for connection in list(self.network.server.connections):
            if connection.state is State.GREETING:
                connection.abort()
        self.network.settle()
        cases: dict[str, tuple[Act, Outcome]] = {
            "another name": (change(name="eve"), CLOSED),
            "another id": (change(id=667), CLOSED),
            "somebody else's id": (change(id=1), CLOSED),
            "another spec": (change(ciphers="ECDHE-AES256_CTR-SHA384"), CLOSED),
            "unknown spec": (change(ciphers="NULL"), CLOSED),
            "no data": (change(data={}), CLOSED),
            "key on another curve": (change(public_key=base64(other_curve)), CLOSED),
            "the same, as long as ours": (change(public_key=base64(_padded(other_curve))), CLOSED),
            "key not on the curve": (change(public_key=base64(_moved(pem))), CLOSED),
            "key of another algorithm": (change(public_key=base64(pem.replace(b"MHYw", b"MHYx"))), CLOSED),
            "key without its newline": (change(public_key=base64(pem[:-1])), CLOSED),
            "key not in base64": (change(public_key="!" * 288), CLOSED),
            "key that is no text": (change(public_key=7), CLOSED),
        }
        for size in (0, 31, 33, 64):
            cases[f"random of {size}"] = (change(client_random=base64(bytes(size))), CLOSED)
        self.meet(cases, greeted=True)


def _padded(pem: bytes) -> bytes:
    """A key as long as one of secp384r1."""
    return pem[:-26] + b"A" * (215 - len(pem)) + pem[-26:]


def _moved(pem: bytes) -> bytes:
    """The PEM text of something beside the curve."""
    return pem[:150] + (b"A" if pem[150:151] != b"A" else b"B") + pem[151:]
