"""What the vectors of the modern protocol give: randomness to be drawn, bytes in hex, and what is to be changed."""

from __future__ import annotations

import copy
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sims.crypto import primitives
from sims.crypto.primitives import Encapsulation, KemKey, X25519Key
from sims.errors import PeerError, SimsError
from sims.vectors_report import Part, Report, UnusableError


def unhex(value: object) -> bytes:
    """The bytes of a lower-case hex string.

    :raises UnusableError: for anything else.
    """
    if isinstance(value, str) and value == value.lower():
        try:
            return bytes.fromhex(value)
        except ValueError:
            pass
    raise UnusableError("not bytes in lower-case hex")


def octets(part: Part, key: str) -> bytes:
    """The bytes that stand under a key."""
    return unhex(part.take(key, str))


def each(document: Part, key: str, noun: str, act: Callable[[Part], None]) -> None:
    """Do something with each object in a list, under the name that a report gives it."""
    for number, values in enumerate(document.take(key, list)):
        with document.report.attempt(f"{noun} {number}"), usable():
            act(Part(document.report, f"{noun} {number}", values))


@contextmanager
def usable() -> Iterator[None]:
    """What a file holds beneath the values that are named here, in lists and maps, may be of any shape."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UnusableError(f"of a shape or size that cannot be used ({type(error).__name__})") from error


class Draws:
    """Randomness from a file, each kind in the order of its use.

    :param values: the ``draws`` of a step; their sizes say what they are, a map is an encapsulation.
    """

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._kept: dict[object, list[Any]] = {}
        for value in values:
            if isinstance(value, dict):
                given = Encapsulation(unhex(value.get("ciphertext")), unhex(value.get("secret")))
                self._kept.setdefault("encapsulation", []).append(given)
            else:
                found = unhex(value)
                self._kept.setdefault(len(found), []).append(found)

    @classmethod
    def with_randoms(cls, values: Iterable[object], randoms: Iterable[object]) -> Draws:
        """Where randoms have the size of keys."""
        found = cls(values)
        found._kept["randoms"] = [unhex(random) for random in randoms]
        return found

    def _next(self, kind: object) -> Any:
        kept = self._kept.get(kind)
        if not kept:
            raise UnusableError("more randomness is drawn than the file gives")
        return kept.pop(0)

    def octets(self, size: int) -> bytes:
        """The next bytes of this size."""
        found: bytes = self._next("randoms" if self._kept.get("randoms") else size)
        if len(found) != size:
            raise UnusableError(f"a random of {len(found)} bytes, where {size} are drawn")
        return found

    def x25519(self) -> X25519Key:
        """The next key."""
        return X25519Key(self._next(primitives.X25519_SIZE))

    def mlkem768(self) -> KemKey:
        """The next key."""
        return KemKey(self._next(primitives.KEM_SEED_SIZE))

    def encapsulate(self, public: bytes) -> Encapsulation:
        """The next encapsulation, whoever it is for."""
        primitives.check_kem_public(public)
        found: Encapsulation = self._next("encapsulation")
        return found

    @property
    def left(self) -> int:
        """How many were not drawn."""
        return sum(map(len, self._kept.values()))


def mutated(document: Any, how: Part, *, base64: bool = False) -> Any:
    """A changed copy.

    :param base64: whether byte fields are base64, else hex.
    :raises UnusableError: when there is nothing at the path.
    """
    found = copy.deepcopy(document)
    *where, last = how.take("path", str).split("/")
    holder = found
    for key in where:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or last not in holder:
        raise UnusableError("path: nothing is there")
    if "set" in how.values:
        holder[last] = how.values["set"]
    elif how.values.get("remove") is True:
        del holder[last]
    else:
        data = bytearray(b64decode(holder[last]) if base64 else unhex(holder[last]))
        at, mask = how.take("at", int), unhex(how.take("xor", str))
        if not -len(data) <= at < len(data) or len(mask) != 1:
            raise UnusableError("at, xor: not a byte of the field")
        data[at] ^= mask[0]
        holder[last] = b64encode(data).decode("ascii") if base64 else data.hex()
    if found == document:
        raise UnusableError("a mutation that changes nothing")
    return found


def refused(
    report: Report, place: str, act: Callable[[], object], picture: Callable[[], object] = lambda: None
) -> None:
    """Take note unless ``act`` is refused, as the peer's fault, and the state is as it was."""
    before = picture()
    try:
        act()
    except PeerError:
        report.same(f"{place}, the state after a refusal", True, picture() == before)
    except SimsError as error:
        report.fault(f"{place}: refused as the own fault: {error.text}")
    else:
        report.fault(f"{place}: not refused")


def expects_refusal(part: Part) -> bool:
    """Whether a refusal is expected; ``expect`` says nothing else but ``ok``.

    :raises UnusableError: when it does.
    """
    expect = part.values.get("expect", "ok")
    if expect not in ("refused", "ok"):
        raise UnusableError("expect: neither refused nor ok")
    return bool(expect == "refused")


def all_keys(part: Part, key: str, known: Iterable[str]) -> Part:
    """An object that has exactly these keys, so that no value of it goes unread."""
    found = part.part(key)
    part.report.same(f"{part.place}, the keys of {key}", sorted(known), sorted(found.values))
    return found
