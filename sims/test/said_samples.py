"""Events about what was said before and about the account, with the object and the lines that each becomes."""

from __future__ import annotations

from typing import Any

from sims.client.events import (
    About,
    AccountDeleted,
    Anew,
    Contact,
    Deleted,
    Delivery,
    Event,
    History,
    Message,
    NotRead,
    Said,
    State,
    Why,
)
from sims.errors import Code

ID = "kzc7jvbdvd6n52rwcfn4smvjm7j46jpl"
EVE = Contact(ID, "eve")
EVE_JSON = {"id": ID, "name": "eve"}
LONG = 16 * "0b"
SENT = Said(id=LONG, peer=EVE, ours=True, text="a\n* b", state="failed", time=1, code="policy", times={"failed": 2})
CAME = Said(
    id=LONG,
    peer=EVE,
    ours=False,
    text="c\n* d",
    state="came",
    time=60,
    verified=True,
    confirmed=True,
    order="gap",
    missing=(3,),
)
LOST = Said(
    id=LONG,
    peer=EVE,
    ours=False,
    text="",
    state="unreadable",
    time=60,
    code="malformed",
    verified=False,
    confirmed=True,
)

SAID_EVENTS: list[tuple[Event, dict[str, Any], str | None]] = [
    (
        Message(sender=EVE, text="hi", id="m4", verified=False, confirmed=True, order="gap", missing=(3, 4)),
        {
            "event": "message",
            "from": EVE_JSON,
            "text": "hi",
            "id": "m4",
            "verified": False,
            "confirmed": True,
            "order": "gap",
            "missing": [3, 4],
        },
        "eve (kzc7jvbd...) [unverified] [missing before this: numbers 3, 4]: hi",
    ),
    (
        Message(sender=EVE, text="hi", id="m5", confirmed=True, order="gap", missing=(3,), unreadable=("0a",)),
        {
            "event": "message",
            "from": EVE_JSON,
            "text": "hi",
            "id": "m5",
            "confirmed": True,
            "order": "gap",
            "missing": [3],
            "unreadable": ["0a"],
        },
        "eve (kzc7jvbd...) [unverified] [missing before this: number 3]: hi",
    ),
    (
        State(id=LONG, to=EVE, state=Delivery.FAILED, code=Code.MAILBOX_FULL),
        {"event": "state", "id": LONG, "to": EVE_JSON, "state": "failed", "code": "mailbox-full"},
        "! not delivered to eve (kzc7jvbd...): mailbox-full; too much waits for them already, or they have never "
        "answered you: send it again when they have been here",
    ),
    (
        Anew(peer=EVE),
        {"event": "began-anew", "peer": EVE_JSON},
        "! what eve (kzc7jvbd...) says begins anew: their store is new or restored, or they gave something up",
    ),
    (
        NotRead(to=EVE, id=LONG, again=1),
        {"event": "unreadable", "to": EVE_JSON, "id": LONG, "again": 1},
        "! eve (kzc7jvbd...) could not read a message of yours: it is sent again (/why 0b0b0b0b)",
    ),
    (
        History(to=EVE, messages=(SENT, CAME, LOST)),
        {
            "event": "history",
            "to": EVE_JSON,
            "messages": [
                {
                    "id": LONG,
                    "to": EVE_JSON,
                    "text": "a\n* b",
                    "state": "failed",
                    "time": 1,
                    "code": "policy",
                    "times": {"failed": 2},
                },
                {
                    "id": LONG,
                    "from": EVE_JSON,
                    "text": "c\n* d",
                    "state": "came",
                    "time": 60,
                    "verified": True,
                    "confirmed": True,
                    "order": "gap",
                    "missing": [3],
                },
                {
                    "id": LONG,
                    "from": EVE_JSON,
                    "text": "",
                    "state": "unreadable",
                    "time": 60,
                    "code": "malformed",
                    "verified": False,
                    "confirmed": True,
                },
            ],
        },
        "* what was said with eve (kzc7jvbd...): 3 messages\n"
        "[1970-01-01 00:00:01 UTC 0b0b0b0b] to eve (kzc7jvbd...) [failed: policy]: a\n"
        "        * b\n"
        "[1970-01-01 00:01:00 UTC 0b0b0b0b] eve (kzc7jvbd...) [verified] "
        "[missing before this: number 3]: c\n"
        "        * d\n"
        "[1970-01-01 00:01:00 UTC 0b0b0b0b] eve (kzc7jvbd...): [could not be read: malformed]",
    ),
    (
        History(text="words", messages=()),
        {"event": "history", "text": "words", "messages": []},
        "* where that was said: 0 messages",
    ),
    (
        Why(id=LONG, peer=EVE, state="failed", text="asked for", times={"queued": 1}, code="policy"),
        {
            "event": "why",
            "id": LONG,
            "peer": EVE_JSON,
            "state": "failed",
            "code": "policy",
            "text": "asked for",
            "times": {"queued": 1},
        },
        "* message 0b0b0b0b, eve (kzc7jvbd...): failed\n    asked for",
    ),
    (
        Deleted(peer=EVE),
        {"event": "deleted", "peer": EVE_JSON},
        "* what was said with eve (kzc7jvbd...) is deleted",
    ),
    (
        About(facts={"name": "eve", "keys": [b"\x01", 2.5], "none": None}),
        {"event": "about", "facts": {"name": "eve", "keys": ["01", "2.5"], "none": None}},
        "* what the server says it keeps on you:\n"
        '    {\n      "name": "eve",\n      "keys": [\n        "01",\n        "2.5"\n      ],\n'
        '      "none": null\n    }',
    ),
    (
        AccountDeleted(),
        {"event": "account-deleted"},
        "* the server has forgotten you",
    ),
]
