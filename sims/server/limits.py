"""What one client may cost the relay."""

from __future__ import annotations

import re
from math import inf
from typing import Any, NamedTuple

from sims.crypto import payloads
from sims.errors import Code, LocalError
from sims.frames import MAX_FRAME, MAX_FRAME_BEFORE_SESSION
from sims.server.interfaces import Quota

#: Seconds for a whole handshake, and for a client that has stopped taking what it is sent.
HANDSHAKE_TIMEOUT = 10.0
STALL_TIMEOUT = 60.0

#: What waits for a client that has not used the last 64 keys: beyond the first pair of numbers whoever sends to it
#: waits, beyond the second it is closed (messages, bytes). Acknowledgements do not wait, and so can come to the second.
SOFT_PENDING = (64, 256 * 1024)
HARD_PENDING = (4096, 4 * 1024 * 1024)

#: A client that sends so many frames without being sent any is sent a list reply, so that keys move on.
TURN_AFTER = 64


# --- sims/2 (protocol.rst, "Limits") ----------------------------------------------------------------------------------


class Frame(NamedTuple):
    """Bytes of a frame without its terminator: after phase 4, and before."""

    after: float = MAX_FRAME
    before: float = MAX_FRAME_BEFORE_SESSION


class Handshake(NamedTuple):
    """Seconds: for a whole handshake, for one frame."""

    whole: float = 10
    frame: float = 30


class Connections(NamedTuple):
    """Of one address: new connections a minute, connections at once, failed handshakes a minute."""

    minute: float = 60
    at_once: float = 64
    failed: float = 10


class Rate(NamedTuple):
    """So many a second, and so many at once when there were none for a while."""

    second: float
    burst: float


class Mailbox(NamedTuple):
    """Messages and bytes of one mailbox, days that a message waits; messages and bytes of a sender never answered."""

    messages: float = 1000
    size: float = 4 * 1024 * 1024
    days: float = 30
    stranger_messages: float = 20
    stranger_size: float = 256 * 1024

    @property
    def quota(self) -> Quota:
        """As the store takes it."""
        return Quota(self.messages, self.size, self.days * 86_400, self.stranger_messages, self.stranger_size)


class Unacknowledged(NamedTuple):
    """To one reader: bytes that were not sent yet, messages that were not acknowledged yet."""

    unsent: float = 256 * 1024
    messages: float = 256


class Limits(NamedTuple):
    """One field for each row of the table; ``math.inf`` where there is no limit."""

    frame: Frame = Frame()
    handshake: Handshake = Handshake()
    connections: Connections = Connections()
    sends: Rate = Rate(20, 200)
    fetches: Rate = Rate(1, 20)
    mailbox: Mailbox = Mailbox()
    unacknowledged: Unacknowledged = Unacknowledged()

    def told(self) -> payloads.Limits:
        """Those that a client must know."""
        return payloads.Limits(
            frame=_number(self.frame.after),
            mailbox=_number(self.mailbox.messages),
            sends=_number(self.sends.second),
            burst=_number(self.sends.burst),
        )

    def with_limit(self, text: str) -> Limits:
        """These, but for one row: ``NAME=VALUE``, or ``NAME=none``, as :data:`FORMATS` says.

        :raises LocalError: ``malformed``, and what about it.
        """
        name, equals, value = text.partition("=")
        row = getattr(self, name) if name in FORMATS else None
        if row is None or not equals:
            raise LocalError(
                Code.MALFORMED, f"--limit takes NAME=VALUE, NAME one of {', '.join(FORMATS)}; not {text!r}"
            )
        if value == "none":
            return self._with(name, _lifted(row))
        parts = value.split("/")
        try:
            numbers = [_read(part) for part in parts]
            if len(numbers) > len(row) or any(not _fits(name, at, number) for at, number in enumerate(numbers)):
                raise ValueError
        except ValueError:
            raise LocalError(Code.MALFORMED, f"--limit {name} takes {FORMATS[name]}, or none; not {value!r}") from None
        return self._with(name, type(row)(*numbers, *row[len(numbers) :]))

    def _with(self, name: str, row: object) -> Limits:
        changed: dict[str, Any] = {name: row}
        return self._replace(**changed)


#: How the value of each row is written; parts at the end may be left out, and stay as they were.
FORMATS: dict[str, str] = {
    "frame": "BYTES/BYTES-BEFORE-PHASE-4 (4K to 96K)",
    "handshake": "SECONDS/SECONDS-A-FRAME",
    "connections": "A-MINUTE/AT-ONCE/FAILED-A-MINUTE",
    "sends": "A-SECOND/BURST",
    "fetches": "A-SECOND/BURST",
    "mailbox": "MESSAGES/BYTES/DAYS/MESSAGES-OF-A-STRANGER/BYTES-OF-A-STRANGER",
    "unacknowledged": "BYTES-UNSENT/MESSAGES",
}

_NUMBER = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([KM]?)", re.ASCII)
_UNITS = {"": 1, "K": 1024, "M": 1024 * 1024}
#: Less would keep everybody out.
_LEAST_FRAME = 4096


def _read(text: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(text)
    number = float(match[1]) * _UNITS[match[2]]
    return int(number) if number.is_integer() else number


def _fits(name: str, at: int, number: float) -> bool:
    if name == "frame":
        return _LEAST_FRAME <= number <= MAX_FRAME
    # No connection at all, no second: what would lock everybody out is not a limit. A mailbox may hold nothing.
    return number > 0 or (name == "mailbox" and at != 2)


def _lifted(row: tuple[float, ...]) -> object:
    if isinstance(row, Frame):
        return Frame(MAX_FRAME, MAX_FRAME)  # the format's own bound: nobody can read a longer one
    lifted: Any = type(row)
    return lifted(*[inf] * len(row))


def _number(value: float) -> int | None:
    """As it is told to clients: whole, at least 1; None where there is no limit."""
    return None if value == inf else max(1, min(int(value), 2**32 - 1))
