"""What came on a session that is not confirmed; it counts only once that is, as until then anybody may have sent it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from sims.crypto.payloads import Bytes8
from sims.crypto.stored import Stored
from sims.crypto.streams import COST, Place, Seq, Stream


class Kept(Stored, frozen=True, kw_only=True):
    """A content of an unconfirmed session."""

    stream: Bytes8
    seq: Seq
    data: bytes


class Held(Stored, frozen=True, kw_only=True, omit_defaults=True):
    """What came on one unconfirmed session.

    :ivar contents: in the order in which they came.
    :ivar ends: how far its streams have come with contents that are not kept any more, one of each. They are left out
        of what is stored where there are none, as versions that knew none left them out.
    """

    session: bytes
    contents: tuple[Kept, ...] = ()
    ends: tuple[Stream, ...] = ()

    @property
    def cost(self) -> int:
        """What it keeps, in bytes."""
        return sum(len(kept.data) + COST for kept in self.contents) + COST * len(self.ends)

    def onto(self, stream: Stream) -> Stream:
        """A stream with what is held of it."""
        for end in self.ends:
            if end.stream == stream.stream:
                stream = further(stream, end)
        for kept in self.contents:
            if kept.stream == stream.stream:
                stream = stream.taking(kept.seq, kept.data)[1]
        return stream

    def without(self, goes: Callable[[bytes], bool]) -> Held:
        """The same without some contents, and with nothing missing: what comes behind the last is in order.

        :param goes: whether a content, chain || MessagePack, is one of them.
        """
        streams = dict.fromkeys([*(end.stream for end in self.ends), *(kept.stream for kept in self.contents)])
        ends = (given_up(self.onto(Stream(stream=key))) for key in streams)
        return replace(self, contents=tuple(kept for kept in self.contents if not goes(kept.data)), ends=tuple(ends))


def given_up(stream: Stream) -> Stream:
    """A stream in which nothing is missing any more: it goes on behind the last content that has come."""
    if not stream.runs:
        return stream
    last = stream.runs[-1]
    return Stream(stream=stream.stream, seq=last.last, chain=last.chain)


def further(stream: Stream, end: Stream) -> Stream:
    """A stream of which all has come up to the end of another state of it."""
    if end.seq <= stream.seq:
        return stream
    found = Stream(stream=stream.stream, seq=end.seq, chain=end.chain)
    for run in stream.runs:
        if run.first <= found.seq < run.last or found.taking(run.first, run.head)[0] is Place.IN_ORDER:
            found = replace(found, seq=run.last, chain=run.chain)
        elif run.first > found.seq:
            found = replace(found, runs=(*found.runs, run))
    return found
