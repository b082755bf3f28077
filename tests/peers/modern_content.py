"""Contents of sims/2, and the order in which they belong, made from the protocol page alone ("Content")."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tests.peers.modern_primitives import (
    Map,
    RefusedError,
    number_field,
    pack,
    raw_field,
    text_field,
    unpack,
)

START = bytes(32)  # the chain before the first content


def make_content(previous: bytes, fields: Map) -> bytes:
    """The bytes of a content that follows the one with the chain `previous`."""
    packed = pack(fields)
    return hashlib.sha256(previous + packed).digest() + packed


@dataclass(frozen=True)
class Content:
    """A content that was received."""

    raw: bytes
    fields: Map

    @classmethod
    def parse(cls, raw: bytes) -> Content:
        fields = unpack(raw[32:])
        text_field(fields, "kind")
        raw_field(fields, "id", 16)
        raw_field(fields, "stream", 8)
        if number_field(fields, "seq") < 1:
            raise RefusedError("malformed", "seq")
        return cls(raw, fields)

    @property
    def chain(self) -> bytes:
        return self.raw[:32]

    @property
    def kind(self) -> str:
        return str(self.fields["kind"])

    @property
    def id(self) -> bytes:
        return bytes(self.fields["id"])

    @property
    def stream(self) -> bytes:
        return bytes(self.fields["stream"])

    @property
    def seq(self) -> int:
        return int(self.fields["seq"])

    def follows(self, chain: bytes) -> bool:
        return hashlib.sha256(chain + self.raw[32:]).digest() == self.chain


@dataclass
class Order:
    """How far one stream of a conversation is unbroken, and what has come beyond that."""

    seq: int = 0
    chain: bytes = START
    beyond: dict[int, Content] = field(default_factory=dict)

    def judge(self, content: Content) -> str:
        """`in order`, `gap`, `doubled`, or `altered` when it does not follow the one before it. Nothing moves."""
        if content.seq <= self.seq or content.seq in self.beyond:
            return "doubled"
        if content.seq > self.seq + 1:
            return "gap"
        return "in order" if content.follows(self.chain) else "altered"

    def count(self, content: Content) -> str:
        """Judge, and let it count."""
        verdict = self.judge(content)
        if verdict != "doubled":
            self.beyond[content.seq] = content
        while (after := self.beyond.pop(self.seq + 1, None)) is not None:
            self.seq, self.chain = after.seq, after.chain
        return verdict
