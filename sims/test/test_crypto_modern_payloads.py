"""Tests of what travels inside sealed boxes: every field, its size, and that nothing else is taken for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from sims.crypto import payloads
from sims.crypto.payloads import convert, decode, encode
from sims.errors import Code, PeerError
from sims.test.builders import refusal

MESSAGE = {"header": bytes(69), "body": bytes(272)}
#: Of each type: fields that must be there, with what they may be; and fields that may be.
TYPES: dict[type, tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]] = {
    payloads.Offer: (
        {"version": (2, 3), "random": (bytes(32),), "public_key": (bytes(32),), "kem_public_key": (bytes(1184),)},
        {},
    ),
    payloads.Answer: (
        {
            "random": (bytes(32),),
            "public_key": (bytes(32),),
            "kem_ciphertext": (bytes(1088),),
            "sealed": (b"", bytes(6144)),
        },
        {},
    ),
    payloads.ServerProof: ({"sign": (bytes(32),), "dh": (bytes(32),), "signature": (bytes(64),)}, {}),
    payloads.ClientProof: (
        {"sign": (bytes(32),), "dh": (bytes(32),), "name": ("", "x" * 512), "signature": (bytes(64),)},
        {"invite": ("", "x" * 1024), "epoch": (0, 2**64 - 1)},
    ),
    payloads.Welcome: (
        {"name": ("", "x" * 512), "limits": ({}, {"frame": 2**32 - 1}), "time": (0, 2**64 - 1)},
        {"epoch": (0, 2**64 - 1)},
    ),
    payloads.Refusal: ({"error": ("policy", "x" * 64)}, {}),
    payloads.Outcome: (
        {},
        {"error": ("policy", "x" * 64), "name": ("x" * 512,), "limits": ({},), "time": (0,), "epoch": (0, 2**64 - 1)},
    ),
    payloads.Limits: (
        {},
        dict.fromkeys(("frame", "mailbox", "sends", "burst", "rekey_messages", "rekey_seconds"), (0, 2**32 - 1, None)),
    ),
    payloads.Rekey1: ({"public_key": (bytes(32),), "kem_public_key": (bytes(1184),)}, {}),
    payloads.Rekey2: ({"public_key": (bytes(32),), "kem_ciphertext": (bytes(1088),)}, {}),
    payloads.Rekey3: ({}, {}),
    payloads.Message: ({"header": (bytes(69), bytes(2341)), "body": (bytes(272), bytes(32_784))}, {}),
    payloads.Phase1: (
        {
            "spec": ("", "x" * 128),
            "sign": (bytes(32),),
            "dh": (bytes(32),),
            "prekey_id": (0, 2**32 - 1),
            "public_key": (bytes(32),),
            "kem_public_key": (bytes(1184),),
            "kem_ciphertext": (bytes(1088),),
        },
        {"kem_prekey_id": (0, 2**32 - 1), "one_time_id": (0, 2**32 - 1), "message": (MESSAGE,)},
    ),
    payloads.Phase2: (
        {
            "public_key": (bytes(32),),
            "kem_public_key": (bytes(1184),),
            "kem_ciphertext": (bytes(1088),),
            "mac": (bytes(32), bytes(48)),
        },
        {"message": (MESSAGE,)},
    ),
    payloads.Phase3: ({"mac": (bytes(32), bytes(48))}, {"message": (MESSAGE,)}),
    payloads.Phase4: ({"mac": (bytes(32), bytes(48))}, {}),
}


def beyond(values: tuple[Any, ...]) -> list[Any]:
    """What is just outside of the values that a field may have."""
    low, high = values[0], values[-1] if values[-1] is not None else values[-2]
    if isinstance(low, bytes):
        found: list[Any] = [high + b"\0"] if len(high) != 6144 else []
        found += [low[:-1]] if low else []
        return [*found, "x" * len(low), 1, None]
    if isinstance(low, str):
        return [high + "x", high.encode(), 1, None] if len(high) > 6 else [1, None]
    if isinstance(low, int):
        return ([high + 1] if high > 2**31 and high < 2**64 - 1 else []) + [-1, 0.5, "1", b"1"]
    return [1, "x", b"x", []]


class Types(SynchronousTestCase):
    def both(self, kind: type, value: dict[str, Any]) -> Any:
        """What both ways of reading give."""
        found: Any = decode(kind, msgspec.msgpack.encode(value))
        self.assertEqual(convert(kind, value), found)
        return found

    def refused(self, kind: type, value: object) -> None:
        """Both ways refuse."""
        acts: tuple[Callable[[], object], ...] = (
            lambda: decode(kind, msgspec.msgpack.encode(value)),
            lambda: convert(kind, value),
        )
        for act in acts:
            self.assertIs(refusal(PeerError, act).code, Code.MALFORMED, (kind, value))

    def test_every_field_at_its_bounds(self) -> None:
        for kind, (needed, optional) in TYPES.items():
            self.assertEqual({*needed, *optional}, {*kind.__struct_fields__})  # type: ignore[attr-defined]
            least = {name: values[0] for name, values in needed.items()}
            self.both(kind, least)
            self.both(kind, {**least, "more": [1]})
            for name, values in (*needed.items(), *optional.items()):
                for value in values:
                    found = self.both(kind, {**least, name: value})
                    kept = getattr(found, name)
                    self.assertEqual(msgspec.to_builtins(kept, builtin_types=(bytes,)), value)
                    self.assertEqual(self.both(kind, msgspec.msgpack.decode(encode(found))), found)
                for value in beyond(values):
                    self.refused(kind, {**least, name: value})

    def test_what_is_needed(self) -> None:
        for kind, (needed, optional) in TYPES.items():
            least = {name: values[0] for name, values in needed.items()}
            for missing in needed:
                self.refused(kind, {name: value for name, value in least.items() if name != missing})
            unset = {name for name in optional if getattr(self.both(kind, least), name) in (UNSET, None)}
            self.assertEqual(unset, {*optional})
            self.assertNotIn("=", repr(self.both(kind, least)).replace(repr(payloads.Limits()), ""))

    def test_what_is_no_map(self) -> None:
        for kind in TYPES:
            for value in (None, 1, "x", b"x", [], [1]):
                self.refused(kind, value)

    def test_what_two_parsers_could_read_differently(self) -> None:
        good = encode(payloads.Phase4(mac=bytes(32)))
        more = bytes([good[0] + 1]) + good[1:]
        decode(payloads.Phase4, more + b"\xa4more\xc0")
        for data in (
            *(more + b"\xa3mac" + good[5:], more + b"\xa4more\xcb\x7f\xf8" + bytes(6), more + b"\xa4more\xd4\x01\x01"),
            *(more + b"\xa4more" + b"\x91" * 8 + b"\xc0", more + b"\x01\x01", good + b"\xc0", good[:-1], b""),
        ):
            self.assertIs(refusal(PeerError, decode, payloads.Phase4, data).code, Code.MALFORMED)

    def test_lists_of_specs(self) -> None:
        for names in ([], ["x"], ["x" * 128] * 64):
            self.assertEqual(payloads.spec_list(names), tuple(names))
        values: list[Any] = [["x"] * 65, ["x" * 129], [1], [b"x"], "x", None, {"x": 1}]
        for value in values:
            self.assertIs(refusal(PeerError, payloads.spec_list, value).code, Code.MALFORMED)

    def test_nothing_of_it_is_quoted(self) -> None:
        for value in ({"mac": "MARK"}, {"mac": b"MARK"}, {"MARK": 1}):
            for act in (
                lambda value=value: decode(payloads.Phase4, msgspec.msgpack.encode(value)),
                lambda value=value: convert(payloads.Phase4, value),
            ):
                self.assertNotIn("MARK", str(refusal(PeerError, act)))
