"""What has become of a message, in plain words: what happened, when, and what can be done."""

from __future__ import annotations

from sims.client.events import EXPIRED, Delivery
from sims.client.history import CAME, Entry
from sims.client.plain import clock
from sims.errors import Code

_WORDS: dict[str, str] = {
    Code.MALFORMED: "it was not well-formed; this is a fault of a program, not of yours",
    Code.TOO_LARGE: "it is longer than the server takes: send it in parts",
    Code.NO_COMMON_SPEC: "their client and this one allow no cipher in common: one of the two has to be updated",
    Code.POLICY: (
        "it was not allowed: the identity behind the name has changed (ask them in another way, then accept-identity), "
        "or the conversation was deleted before the server had said that it has it; then it may have arrived"
    ),
    Code.NOT_AUTHENTICATED: "it could not be proved who it is from or for: connect again, and compare the number",
    Code.UNKNOWN_RECIPIENT: "nobody at the server has this name or id, or not any more: ask them for their link",
    Code.NOT_SENDER: "the server says that it was not ours to send; connect again",
    Code.RATE_LIMITED: "too much was sent in a short time: wait a little, and send it again",
    Code.MAILBOX_FULL: (
        "too much waits for them already, or they have never answered you: send it again when they have been here"
    ),
    Code.UNAVAILABLE: "the server could not take it: send it again later",
    Code.INTERNAL: "a program has failed: send it again, and tell its authors if that fails too",
    EXPIRED: "nobody said within 30 days that it arrived: it may be lost, with their device perhaps; send it again",
}


def reason(code: str) -> str:
    """What a code means for somebody whose message has failed, and what they can do."""
    return _WORDS.get(code, "the server refuses it")


def of_ours(entry: Entry, waits: str) -> str:
    """What has become of a text that we sent.

    :param waits: what it waits for, where it is queued.
    """
    state, times = entry.state, entry.times
    said = [f"asked for at {clock(entry.time)}"]
    if state == Delivery.QUEUED:
        said.append(f"not sent yet: {waits}" if not entry.again else f"to be sent once more: {waits}")
    if Delivery.ACCEPTED.value in times:
        said.append(f"accepted by the server at {clock(times[Delivery.ACCEPTED.value])}")
    if state == Delivery.ACCEPTED:
        said.append("they have not said yet that it has come; the server keeps it for them")
    if "again" in times:
        count = "once" if entry.again == 1 else f"{entry.again} times"
        said.append(f"could not be read or was lost there, and was sent again {count}, last at {clock(times['again'])}")
    if Delivery.DELIVERED.value in times:
        said.append(f"delivered at {clock(times[Delivery.DELIVERED.value])}")
    if Delivery.READ.value in times:
        said.append(f"shown at {clock(times[Delivery.READ.value])}")
    if state == Delivery.FAILED:
        when = times.get(Delivery.FAILED.value)
        said.append(f"failed{'' if when is None else f' at {clock(when)}'} ({entry.code}): {reason(entry.code)}")
    return "; ".join(said)


def of_theirs(entry: Entry) -> str:
    """What has become of a message that came."""
    said = [f"came at {clock(entry.time)}"]
    if entry.state != CAME:
        said.append(f"could not be read ({entry.code}): its keys are not here, or it was changed on the way")
        asked = entry.times.get("asked")
        said.append("they will be asked for it" if asked is None else f"they were asked for it again at {clock(asked)}")
        return "; ".join(said)
    if not entry.confirmed:
        said.append("it is not proved yet who wrote it")
    elif entry.verified:
        said.append("from somebody who is verified")
    else:
        said.append("from somebody whose safety number was not compared")
    if entry.order == "doubled":
        said.append("another one came with its number before")
    elif entry.missing:
        said.append(f"before it, {numbers(entry.missing)} of what they sent had not come")
    elif entry.order is not None:
        said.append("what came before it was not all that they had sent")
    return "; ".join(said)


def numbers(missing: tuple[int, ...]) -> str:
    """The numbers of what is missing, in words."""
    return ("number " if len(missing) == 1 else "numbers ") + ", ".join(map(str, missing))
