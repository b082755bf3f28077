"""The vectors of the modern protocol: every value worked out, and everything that must be refused, refused.

Keys, signatures, padding and bundles are here; :mod:`sims.vectors_modern_connect` and
:mod:`sims.vectors_modern_session` run the two handshakes and what follows them.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Literal

from sims.crypto import identity as identities
from sims.crypto import payloads
from sims.crypto.identity import Identity
from sims.crypto.notation import CONTENT_SIZES, MAX_BOX, pad, unpad
from sims.crypto.prekeys import Bundle, OneTimeKey, Seen, check_bundle, check_one_time_key
from sims.crypto.primitives import check_ed25519_public
from sims.errors import LocalError
from sims.vectors_modern_connect import Connect
from sims.vectors_modern_given import each, mutated, octets, refused, unhex, usable
from sims.vectors_modern_session import Session, raw_bundle
from sims.vectors_report import Part, UnusableError

_FORMAT = "sims/2 vectors 1"
_KINDS: dict[int, Literal["content", "box"]] = {CONTENT_SIZES[-1]: "content", MAX_BOX: "box"}
#: When bundles are looked at, where a vector doesn't say: Unix seconds.
_NOW = 1_800_000_000


def check(document: Part) -> None:
    """Compare everything in a file of this format."""
    document.check("format", _FORMAT)
    report = document.report
    people: dict[str, Identity] = {}
    for name in document.part("identities").values:
        with report.attempt(f"identity {name}"), usable():
            part = Part(report, f"identity {name}", document.part("identities").take(name, dict))
            people[name] = _identity(part)
    each(document, "safety_numbers", "safety number", lambda part: _safety_number(people, part))
    each(document, "signatures", "signature", lambda part: _signature(document, people, part))
    each(document, "padding", "padding", _padding)
    each(document, "padding_refused", "refused padding", _no_padding)
    each(document, "connect", "connect", lambda part: Connect(part, people).run())
    each(document, "sessions", "session", lambda part: Session(part, people).run())
    sessions = document.take("sessions", list)
    each(document, "bundle_negative", "refused bundle", lambda part: _bundle(part, sessions))


def _known(people: dict[str, Identity], name: object) -> Identity:
    if not isinstance(name, str) or name not in people:
        raise UnusableError("names nobody whose keys are given")
    return people[name]


def _identity(part: Part) -> Identity:
    found = Identity(octets(part, "sign_private"), octets(part, "dh_private"))
    part.check("sign", found.public.sign)
    part.check("dh", found.public.dh)
    part.check("id", found.id)
    return found


def _signature(document: Part, people: dict[str, Identity], part: Part) -> None:
    signer = _known(people, part.take("by", str))
    purpose, message = part.take("purpose", str), octets(part, "message")
    part.check("signature", signer.sign(purpose, message))
    signature = octets(part, "signature")
    signer.public.verify(purpose, message, signature)
    for key in document.take("small_order_keys", list):
        small = unhex(key)
        if (small[-1] & 0x7F, small[:-1]) == (signer.public.sign[-1] & 0x7F, signer.public.sign[:-1]):
            raise UnusableError("small_order_keys: the key of an identity")
        refused(
            document.report,
            f"{part.place}, under the small-order key {key}",
            partial(identities.verify, small, purpose, message, signature),
        )
        refused(document.report, f"the small-order key {key}", partial(check_ed25519_public, small))


def _safety_number(people: dict[str, Identity], part: Part) -> None:
    names = part.take("of", list)
    if len(names) != 2:
        raise UnusableError("of: not two names")
    one, other = (_known(people, name) for name in names)
    part.check("number", identities.safety_number(one.public, other.public))


def _no_padding(part: Part) -> None:
    padded = octets(part, "start") + bytes(part.take("zeros", int))
    part.check("expect", "refused")
    kind: Literal["content", "box"]
    for kind in ("content", "box"):
        refused(part.report, part.place, partial(unpad, kind, padded))


def _padding(part: Part) -> None:
    limit = part.take("limit", int)
    if limit not in _KINDS:
        raise UnusableError("limit: neither that of content nor that of a box")
    kind, plaintext = _KINDS[limit], octets(part, "byte") * part.take("count", int)
    try:
        padded = pad(kind, plaintext)
    except LocalError:
        part.check("expect", "refused")
        return
    part.check("length", len(padded))
    part.check("sha256", sha256(padded).digest())
    part.report.same(
        f"{part.place}, without its padding", sha256(plaintext).digest(), sha256(unpad(kind, padded)).digest()
    )


def _bundle(part: Part, sessions: list[object]) -> None:
    number = part.take("session", int)
    if not 0 <= number < len(sessions):
        raise UnusableError("session: there is no such session")
    session = Part(part.report, part.place, sessions[number])
    whole = {key: session.take(key, dict) for key in ("bundle", "one_time_key")}
    part.check("expect", "refused")
    _use(whole)
    if "mutate" in part.values:
        changed = mutated(whole, part.part("mutate"))
        refused(part.report, part.place, lambda: _use(changed))
    else:
        now = part.take("now", int) if "now" in part.values else _NOW
        seen = Seen(version=part.take("seen_version", int), digest=b"") if "seen_version" in part.values else None
        expected = part.take("id", str) if "id" in part.values else None
        refused(part.report, part.place, lambda: _use(whole, now=now, seen=seen, expected=expected))


def _use(
    whole: dict[str, dict[str, object]], now: int = _NOW, seen: Seen | None = None, expected: str | None = None
) -> None:
    bundle = payloads.convert(Bundle, raw_bundle(whole["bundle"]))
    one_time_key = payloads.convert(OneTimeKey, raw_bundle(whole["one_time_key"]))
    check_bundle(bundle, now=now, expected=expected, before=seen)
    check_one_time_key(one_time_key, bundle.identity)
