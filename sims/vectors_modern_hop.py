"""The vectors of the hop behind connect: every box, the rekey, and everything that must be refused."""

from __future__ import annotations

import json
from base64 import b64encode
from copy import copy
from functools import partial
from typing import Any

from sims.crypto import payloads, primitives, schedule
from sims.crypto.hop import Box, Hop, Received
from sims.crypto.notation import u64, unpad
from sims.crypto.primitives import KemKey, X25519Key
from sims.errors import malformed
from sims.specs import ModernSpec
from sims.strictjson import Octets, parse_json
from sims.vectors_modern_given import Draws, all_keys, each, mutated, octets, refused, unhex
from sims.vectors_report import Part, UnusableError

Frame = dict[str, Any]
SIDES = ("client", "server")


def compact(value: object) -> str:
    """A frame as it is sent."""
    return json.dumps(value, separators=(",", ":"))


def as_base64(data: bytes) -> str:
    """A byte field as it is sent."""
    return b64encode(data).decode("ascii")


def parsed(text: str) -> Frame:
    """A frame that came; ``malformed`` unless it is a JSON object."""
    value = parse_json(text.encode())
    if not isinstance(value, dict):
        raise malformed("not a frame")
    return value


def picture(end: object) -> object:
    """A picture of the state of one end of connect, or of a hop, but for whether it is still of use."""
    slots = getattr(type(end), "__slots__", None) or vars(end)
    held = {name: getattr(end, name) for name in slots if name not in ("phase", "_dead")}
    transcript = held.get("_transcript")
    return held, transcript and (transcript.hash, transcript.hs)


class Secure:
    """The messages after phase 4."""

    def __init__(self, part: Part, spec: ModernSpec, client: Hop, server: Hop) -> None:
        self._part = part
        self._spec = spec
        self._hops = {"client": client, "server": server}
        values = part.part("values")
        self._th4 = octets(values, "th4")
        self._chains = {side: octets(values, f"{side}_chain") for side in SIDES}
        self._numbers = dict.fromkeys(SIDES, 0)
        self._next: schedule.Channel | None = None
        self._reply: Box | None = None
        self._given: list[list[Any]] = []
        self._negatives: dict[int, list[Part]] = {}
        self._count = 0

    def run(self) -> None:
        """Compare everything in them."""
        part = self._part
        each(part, "secure", f"{part.place}, secure", self._gather)
        each(part, "secure_negative", f"{part.place}, refused secure", self._negative)
        self._rekeyed()
        each(part, "secure", f"{part.place}, secure", self._step)
        if self._negatives:
            part.report.fault(f"{part.place}, refused secure: names steps that there are not")

    def _gather(self, step: Part) -> None:
        if "draws" in step.values:
            self._given.append(list(step.take("draws", dict).values()))

    def _negative(self, negative: Part) -> None:
        negative.check("expect", "refused")
        self._negatives.setdefault(negative.take("step", int), []).append(negative)

    def _rekeyed(self) -> None:
        """The keys that the rekey gives."""
        if len(self._given) != 2:
            raise UnusableError("secure: not two messages with draws")
        (x1, k1), (x2, kem2) = self._given
        ciphertext, secret = (unhex(kem2.get(key)) for key in ("ciphertext", "secret"))
        same = self._part.report.same
        same(f"{self._part.place}, rekey_kem2", secret, KemKey(unhex(k1)).decapsulate(ciphertext))
        dh = X25519Key(unhex(x1)).exchange(X25519Key(unhex(x2)).public)
        root = octets(self._part.part("values"), "root")
        self._next = schedule.rekeyed(self._spec, root, dh, secret)
        values = all_keys(self._part, "rekey_values", [f"rekey_{name}" for name in schedule.Channel._fields])
        for name, key in self._next._asdict().items():
            values.check(f"rekey_{name}", key)

    def _step(self, step: Part) -> None:
        negatives = self._negatives.pop(self._count, [])
        self._count += 1
        by = step.take("by", str)
        if by not in SIDES:
            raise UnusableError("by: neither client nor server")
        sender = self._hops[by]
        receiver = self._hops["server" if by == "client" else "client"]
        values = all_keys(step, "values", ("message_key", "next_chain", "key", "nonce", "ad", "plaintext"))
        plaintext = octets(values, "plaintext")
        link = schedule.link(self._spec, self._chains[by])
        keys = schedule.box_keys(self._spec, link.message_key, "secure")
        values.check("message_key", link.message_key)
        values.check("next_chain", link.next_chain)
        values.check("key", keys.key)
        values.check("nonce", keys.nonce)
        values.check("ad", self._th4 + (b"\x01" if by == "client" else b"\x02") + u64(self._numbers[by]))
        self._chains[by] = link.next_chain
        self._numbers[by] += 1

        inner = payloads.decode(dict, plaintext)
        rekey = inner.get("phase") if inner.get("type") == "rekey" else None
        if rekey is None:
            box = sender.seal(plaintext)
        elif rekey == 1:
            box = sender.begin_rekey(Draws(self._given[0]))
        elif self._reply is not None:
            box, self._reply = self._reply, None
        else:
            raise UnusableError("frame: a rekey out of order")
        text = step.take("frame", str)
        step.check("frame", compact(_secure(box)))
        frame = parsed(text)
        for negative in negatives:
            changed = mutated(frame, negative.part("mutate"), base64=True)
            spoilt = copy(receiver)
            refused(step.report, negative.place, partial(_open, spoilt, changed), partial(picture, spoilt))
            refused(step.report, f"{negative.place}, and all behind it", partial(_open, spoilt, frame))
        sealed = Octets.from_text(frame["payload"]["ciphertext"])
        opened = unpad("box", primitives.aead_open(self._spec.aead, keys.key, keys.nonce, octets(values, "ad"), sealed))
        step.report.same(f"{step.place}, the plaintext in the box", plaintext, opened)
        entropy = Draws(self._given[1]) if rekey == 1 else Draws()
        received = _open(receiver, frame, entropy)
        step.report.same(f"{step.place}, draws left over", 0, entropy.left)
        expected = plaintext if rekey is None else None
        step.report.same(f"{step.place}, the plaintext that comes out", _text(expected), _text(received.plaintext))
        refused(step.report, f"{step.place}, once more", partial(_open, copy(receiver), frame))
        self._reply = self._reply or received.reply
        if rekey in (2, 3) and self._next is not None:
            side = "server" if rekey == 2 else "client"
            self._chains[side] = getattr(self._next, f"{side}_chain")


def _text(plaintext: bytes | None) -> str | None:
    return None if plaintext is None else plaintext.hex()


def _secure(box: Box) -> Frame:
    return {"type": "secure", "sa-data": {"n": box.n}, "payload": {"ciphertext": as_base64(box.ciphertext)}}


def _open(hop: Hop, frame: Frame, entropy: Draws | None = None) -> Received:
    try:
        ciphertext = Octets.from_text(frame["payload"]["ciphertext"])
        n = frame["sa-data"]["n"]
    except (KeyError, TypeError, ValueError):
        raise malformed("not a secure") from None
    return hop.open(n, ciphertext, 0.0, entropy or Draws())
