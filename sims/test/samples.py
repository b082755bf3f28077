"""One message of every type of the seed, beside its JSON object as the protocol page has it."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, NamedTuple

from sims import messages
from sims.messages import InnerMessage, ListEntry, Message, PeerKeys, SealedBox
from sims.strictjson import Digest, Octets, Octets16, Octets32, Pem

IV = bytes(range(16))
RANDOM = bytes(range(32, 64))
MAC = bytes(range(64, 96))
LONG_MAC = bytes(range(96, 144))
PEM = b"-----BEGIN PUBLIC KEY-----\n" + b"x" * 162 + b"\n-----END PUBLIC KEY-----\n"
CIPHERTEXT = b"\xfb\xff\x00sealed"
CIPHERS = ["ECDHE-AES128_CTR-SHA256", "ECDHE-AES256_CTR-SHA384"]


def b64(data: bytes) -> str:
    """Base64 text, as it stands in a frame."""
    return b64encode(data).decode("ascii")


class Sample(NamedTuple):
    """A message and its object; ``kinds`` says what may stand at each path of the object.

    A path is written with slashes. A kind that begins with ``?`` may be missing. What stands in ``data`` of the
    early phases is anybody's.
    """

    message: Message | InnerMessage
    object: dict[str, Any]
    kinds: dict[str, str]


_KEYS = {"data": "object", "data/public_key": "pem"}
_ENDS = {"src": "end", "dst": "end"}
_FREE = {"data": "?object"}
_PHASE = {"type": "type", "phase": "phase"}
_BOX = {
    "hash": b64(MAC),
    "iv": b64(IV),
    "public_key": b64(PEM),
    "ciphertext": b64(CIPHERTEXT),
    "random": b64(RANDOM),
}
_BOX_KINDS = {
    "data": "object",
    "data/hash": "mac",
    "data/iv": "iv",
    "data/public_key": "pem",
    "data/ciphertext": "octets",
    "data/random": "random",
}

TOP_LEVEL = {
    "ack": Sample(messages.Ack(), {"type": "ack"}, {"type": "type"}),
    "connect 1": Sample(
        messages.Connect1(name="alice", id=7, ciphers=CIPHERS),
        {"type": "connect", "phase": 1, "name": "alice", "id": 7, "ciphers": CIPHERS, "data": {}},
        {**_PHASE, "name": "str", "id": "int", "ciphers": "names", **_FREE},
    ),
    "connect 2": Sample(
        messages.Connect2(ciphers=CIPHERS[0]),
        {"type": "connect", "phase": 2, "ciphers": CIPHERS[0], "data": {}},
        {**_PHASE, "ciphers": "str", **_FREE},
    ),
    "connect 3": Sample(
        messages.Connect3(
            name="alice",
            id=-7,
            ciphers=CIPHERS[0],
            data=messages.ClientKeys(public_key=Pem(PEM), client_random=Octets32(RANDOM)),
        ),
        {
            "type": "connect",
            "phase": 3,
            "name": "alice",
            "id": -7,
            "ciphers": CIPHERS[0],
            "data": {"public_key": b64(PEM), "client_random": b64(RANDOM)},
        },
        {**_PHASE, "name": "str", "id": "int", "ciphers": "str", **_KEYS, "data/client_random": "random"},
    ),
    "connect 4": Sample(
        messages.Connect4(
            ciphers=CIPHERS[0], data=messages.ServerKeys(public_key=Pem(PEM), server_random=Octets32(RANDOM))
        ),
        {
            "type": "connect",
            "phase": 4,
            "ciphers": CIPHERS[0],
            "data": {"public_key": b64(PEM), "server_random": b64(RANDOM)},
        },
        {**_PHASE, "ciphers": "str", **_KEYS, "data/server_random": "random"},
    ),
    "secure": Sample(
        messages.Secure(
            sa_data=messages.SaData(hash=Digest(LONG_MAC), iv=Octets16(IV), random=Octets32(RANDOM)),
            payload=messages.Payload(ciphertext=Octets(CIPHERTEXT), public_key=Pem(PEM)),
        ),
        {
            "type": "secure",
            "sa-data": {"hash": b64(LONG_MAC), "iv": b64(IV), "random": b64(RANDOM)},
            "payload": {"ciphertext": b64(CIPHERTEXT), "public_key": b64(PEM)},
        },
        {
            "type": "type",
            "sa-data": "object",
            "sa-data/hash": "mac",
            "sa-data/iv": "iv",
            "sa-data/random": "random",
            "payload": "object",
            "payload/ciphertext": "octets",
            "payload/public_key": "pem",
        },
    ),
}

LIST_REQUEST = Sample(messages.ListRequest(), {"type": "list"}, {"type": "type"})
LIST_REPLY = Sample(
    messages.ListReply(data=[ListEntry(name="alice", id=7), ListEntry(name="\u00e9\U0001f600", id=-8, level=3)]),
    {
        "type": "list",
        "data": [{"name": "alice", "id": 7, "level": 0}, {"name": "\u00e9\U0001f600", "id": -8, "level": 3}],
    },
    {
        "type": "type",
        "data": "array",
        "data/0": "object",
        "data/0/name": "str",
        "data/0/id": "int",
        "data/0/level": "?int",
    },
)

RELAYED = {
    "client-connect 1": Sample(
        messages.ClientConnect1(src=7, dst="8", ciphers=CIPHERS),
        {"type": "client-connect", "src": 7, "dst": "8", "phase": 1, "ciphers": CIPHERS, "data": {}},
        {**_PHASE, **_ENDS, "ciphers": "names", **_FREE},
    ),
    "client-connect 2": Sample(
        messages.ClientConnect2(src="8", dst=7, ciphers=CIPHERS[0]),
        {"type": "client-connect", "src": "8", "dst": 7, "phase": 2, "ciphers": CIPHERS[0], "data": {}},
        {**_PHASE, **_ENDS, "ciphers": "str", **_FREE},
    ),
    "client-connect 3": Sample(
        messages.ClientConnect3(
            src=7, dst="8", ciphers=CIPHERS[0], data=PeerKeys(public_key=Pem(PEM), random=Octets32(RANDOM))
        ),
        {
            "type": "client-connect",
            "src": 7,
            "dst": "8",
            "phase": 3,
            "ciphers": CIPHERS[0],
            "data": {"public_key": b64(PEM), "random": b64(RANDOM)},
        },
        {**_PHASE, **_ENDS, "ciphers": "str", **_KEYS, "data/random": "random"},
    ),
    "client-connect 4": Sample(
        messages.ClientConnect4(src="8", dst=7, data=PeerKeys(public_key=Pem(PEM), random=Octets32(RANDOM))),
        {
            "type": "client-connect",
            "src": "8",
            "dst": 7,
            "phase": 4,
            "data": {"public_key": b64(PEM), "random": b64(RANDOM)},
        },
        {**_PHASE, **_ENDS, **_KEYS, "data/random": "random"},
    ),
    "client-com": Sample(
        messages.ClientCom(
            src=7,
            dst="8",
            data=SealedBox(
                hash=Digest(MAC),
                iv=Octets16(IV),
                public_key=Pem(PEM),
                ciphertext=Octets(CIPHERTEXT),
                random=Octets32(RANDOM),
            ),
        ),
        {"type": "client-com", "src": 7, "dst": "8", "data": _BOX},
        {"type": "type", **_ENDS, **_BOX_KINDS},
    ),
    "ack of a client": Sample(
        messages.ClientAck(src=8, dst=7),
        {"type": "ack", "src": 8, "dst": 7, "data": None},
        {"type": "type", **_ENDS, "data": "?null"},
    ),
    "client-disconnect": Sample(
        messages.ClientDisconnect(src=7, dst="8"),
        {"type": "client-disconnect", "src": 7, "dst": "8", "data": {}},
        {"type": "type", **_ENDS, **_FREE},
    ),
    "error of the server": Sample(
        messages.Error(code="unknown-recipient", dst="8"),
        {"type": "error", "code": "unknown-recipient", "dst": "8"},
        {"type": "type", "code": "str", "dst": "?end"},
    ),
    "error of a client": Sample(
        messages.Error(code="no-common-spec", src=7, dst=8),
        {"type": "error", "code": "no-common-spec", "src": 7, "dst": 8},
        {"type": "type", "code": "str", "src": "?end", "dst": "?end"},
    ),
    "error about the connection": Sample(
        messages.Error(code="malformed"), {"type": "error", "code": "malformed"}, {"type": "type", "code": "str"}
    ),
}

FROM_CLIENT = {"list": LIST_REQUEST, **RELAYED}
FROM_SERVER = {"list": LIST_REPLY, **RELAYED}
