"""Tests of :mod:`sims.inner`: any bytes are a message or refused with a code, and every message comes back."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from sims import inner
from sims.errors import Code, PeerError
from sims.inner import MAX_MIDS, MAX_ONE_TIME_KEYS

MID, ID, OTHER = bytes(range(16)), "a" * 32, "b234567" + "z" * 25


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


COM: dict[str, Any] = {
    "type": "client-com",
    "src": ID,
    "dst": OTHER,
    "mid": MID,
    "data": {"header": b"h", "body": b"b"},
}
CONNECT: dict[str, Any] = COM | {"type": "client-connect", "phase": 1, "ciphers": ["x"]}
PUBLISH: dict[str, Any] = {"type": "publish", "mid": MID, "data": {"bundle": {"any": 1}, "one_time_keys": [b"x"]}}
FETCH: dict[str, Any] = {"type": "fetch", "mid": MID, "data": {"id": ID}}
ACK: dict[str, Any] = {"type": "ack", "data": {"mids": [MID]}}
ERROR: dict[str, Any] = {"type": "error", "data": {"code": "policy", "mid": MID, "after": 3}}
LIST: dict[str, Any] = {"type": "list", "data": {"clients": [{"id": ID, "name": "x", "online": True}]}}
BUNDLE: dict[str, Any] = {"type": "bundle", "mid": MID, "data": {"bundle": {}, "one_time_key": {}}}

FROM_CLIENT = (
    *(ACK, COM, CONNECT, PUBLISH, FETCH),
    {"type": "list", "data": {}},
    {"type": "about", "mid": MID, "data": {}},
    {"type": "delete", "mid": MID, "data": {}},
)
FROM_SERVER = (ACK, COM, CONNECT, BUNDLE, LIST, {"type": "about", "data": {"facts": {"a": [1, None, "x"]}}}, ERROR)


def without(value: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: one for key, one in value.items() if key != field}


class RoundTripTests(SynchronousTestCase):
    def test_all(self) -> None:
        """Read, written and read again they are the same; and so are the bytes."""
        for read, values in ((inner.from_client, FROM_CLIENT), (inner.from_server, FROM_SERVER)):
            for value in values:
                message = read(packed(value))
                again = inner.encode(message)
                self.assertEqual(read(again), message)
                self.assertEqual(inner.encode(read(again)), again)
                self.assertEqual(msgspec.msgpack.decode(again)["type"], value["type"])

    def test_what_only_the_clients_read_stays_as_it_came(self) -> None:
        """Byte for byte, however it is written: a bundle's signature, a peer's message."""
        odd = b"\xde\x00\x01\xd9\x01x\xce\x00\x00\x00\x07"  # {"x": 7}, in more bytes than it needs
        com = inner.ClientCom(src=ID, dst=OTHER, mid=MID, data=Raw(odd))
        found = inner.from_server(inner.encode(com))
        if not isinstance(found, inner.ClientCom):
            self.fail("another message")
        self.assertEqual(bytes(found.data), odd)
        publish = inner.Publish(mid=MID, data=inner.PublishData(bundle=Raw(odd), one_time_keys=(Raw(odd),)))
        again = inner.from_client(inner.encode(publish))
        if not isinstance(again, inner.Publish):
            self.fail("another message")
        self.assertEqual((bytes(again.data.bundle), bytes(again.data.one_time_keys[0])), (odd, odd))

    def test_fields_may_come_in_any_order(self) -> None:
        for value in FROM_CLIENT:
            turned = dict(reversed(value.items()))
            self.assertEqual(inner.from_client(packed(turned)), inner.from_client(packed(value)))


class RefusalTests(SynchronousTestCase):
    def refused(self, *values: object) -> None:
        for value in values:
            data = value if isinstance(value, bytes) else packed(value)
            for read in (inner.from_client, inner.from_server):
                with self.assertRaises(PeerError) as caught:
                    read(data)
                self.assertEqual(caught.exception.code, Code.MALFORMED, value)

    def test_who_says_what(self) -> None:
        """What a client says is nothing that a server says, and the other way round; but for what both may say, and
        what is asked with the type of its answer."""
        for read, values in ((inner.from_server, FROM_CLIENT), (inner.from_client, FROM_SERVER)):
            for value in values:
                if value["type"] in ("ack", "client-com", "client-connect") or (
                    read is inner.from_client and value["type"] in ("list", "about")
                ):
                    read(packed(value))
                else:
                    with self.assertRaises(PeerError):
                        read(packed(value))

    def test_no_message(self) -> None:
        self.refused(None, 1, [], "list", {}, {"type": "secure"}, {"type": 1, "data": {}}, {"data": {}}, b"", b"\xc1")
        self.refused(packed(COM) + b"\0", packed(COM)[:-1], {"type": "rekey", "phase": 1, "data": {}})

    def test_fields(self) -> None:
        """Each that is missing, of another type, or out of its bounds."""
        for value in FROM_CLIENT + FROM_SERVER:
            for field in ("type", "src", "dst"):
                if field in value:
                    self.refused(without(value, field))
        for value in (COM, CONNECT, PUBLISH, FETCH):
            self.refused(without(value, "mid"), without(value, "data"))
        for bad in ("", "a" * 31, "a" * 33, "A" * 32, "1" * 32, ID + "\n", b"a" * 32, None, 7):
            self.refused(COM | {"src": bad}, COM | {"dst": bad}, FETCH | {"data": {"id": bad}})
        for bad in (b"", bytes(15), bytes(17), "a" * 16, None, 7):
            self.refused(COM | {"mid": bad}, ACK | {"data": {"mids": [bad]}})
        self.refused(ACK | {"data": {"mids": [MID] * (MAX_MIDS + 1)}}, ACK | {"data": {"mids": MID}})
        self.refused(PUBLISH | {"data": {"bundle": {}, "one_time_keys": [{}] * (MAX_ONE_TIME_KEYS + 1)}})
        self.refused(ERROR | {"data": {"code": "x" * 65}}, ERROR | {"data": {"code": "x", "after": -1}})
        self.refused(ERROR | {"data": {"code": "x", "after": 2**32}})

    def test_phases(self) -> None:
        """A list of specs goes with phase 1, and with no other."""
        for phase in (0, 5, "1", None, -1, 1.5):
            self.refused(CONNECT | {"phase": phase})
        self.refused(without(CONNECT, "ciphers"), without(CONNECT, "phase"), CONNECT | {"phase": 2})
        for phase in (2, 3, 4):
            inner.from_client(packed(without(CONNECT, "ciphers") | {"phase": phase}))

    def test_a_fetch_is_of_one(self) -> None:
        self.refused(FETCH | {"data": {}}, FETCH | {"data": {"id": ID, "name": "x"}})
        self.refused(FETCH | {"data": {"name": "x" * 129}})
        inner.from_client(packed(FETCH | {"data": {"name": "x"}}))

    def test_read_one_way_only(self) -> None:
        """No key twice, nothing too deep, no text that is none."""
        mid = packed("mid") + packed(MID)
        self.refused(packed(COM).replace(b"\x85", b"\x86", 1) + mid)
        deep: Any = {}
        for _ in range(20):
            deep = {"x": deep}
        self.refused(COM | {"data": deep}, packed(COM).replace(ID.encode(), b"\xff" * 32))

    def test_says_nothing_of_what_came(self) -> None:
        for value in (COM | {"src": "secret"}, FETCH | {"data": {"secret": "secret", "id": 7}}):
            with self.assertRaises(PeerError) as caught:
                inner.from_client(packed(value))
            self.assertNotIn("secret", str(caught.exception))
        for value in FROM_SERVER:
            shown = repr(inner.from_server(packed(value)))
            self.assertNotIn(ID, shown)
            self.assertLess(len(shown), 40)
