"""Who the user is: identity, name and server, from a store or made for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sims.client.ledger import Ledger
from sims.client.names import can_be_asked, folded
from sims.crypto.identity import MAX_NAME, Identity, ServerLink, parse_server_link
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, LocalError


class Profile(NamedTuple):
    """What a store says of its user.

    :ivar link: the server, without an invitation.
    :ivar epoch: the number of the last connect.
    :ivar member: whether the server has taken us in.
    :ivar emptied: when our mailbox there was last found empty, Unix seconds.
    """

    link: ServerLink
    name: str
    identity: Identity
    epoch: int
    member: bool
    emptied: int = 0

    def __repr__(self) -> str:
        return f"<profile {self.identity.id}>"


def open_profile(
    values: Mapping[str, bytes], link: ServerLink | None, name: str | None, ledger: Ledger, entropy: ModernEntropy
) -> Profile:
    """The profile in a store; a new one where there is none.

    :param link: needed for a new one; for another address of the same server, later.
    :param name: needed for a new one.
    :raises LocalError: ``policy``: the store is of another server or name, or something is missing; ``name-invalid``.
    """
    if name is not None and not (1 <= len(name) <= MAX_NAME and can_be_asked(name)):
        raise LocalError(Code.NAME_INVALID, f"a name has 1 to {MAX_NAME} characters")
    if "identity" not in values:
        if link is None or name is None:
            what = "a link to its server" if link is None else "a name"
            raise LocalError(Code.POLICY, f"a new profile needs {what}")
        identity = Identity.generate(entropy)
        ledger.value("identity", identity.private_bytes())
        ledger.value("name", name.encode("utf-8"))
        return Profile(_keep(link, ledger), name, identity, 0, member=False)
    private = values["identity"]
    kept = parse_server_link(values["link"].decode("ascii"))
    own_name = values["name"].decode("utf-8")
    if link is not None and link.id != kept.id:
        raise LocalError(Code.POLICY, f"this profile is of another server ({kept.id}) than the link")
    if name is not None and folded(name) != folded(own_name):
        raise LocalError(Code.POLICY, f"this profile is of the name {own_name!r}, not of {name!r}")
    if link is not None and (link.addresses, link.tls) != (kept.addresses, kept.tls):
        kept = _keep(link, ledger)  # the server has moved
    epoch = int.from_bytes(values.get("epoch", b""), "big")
    emptied = int.from_bytes(values.get("emptied", b""), "big")
    return Profile(kept, own_name, Identity(private[:32], private[32:]), epoch, "member" in values, emptied)


def _keep(link: ServerLink, ledger: Ledger) -> ServerLink:
    kept = ServerLink(link.addresses, link.id, None, link.tls)
    ledger.value("link", str(kept).encode("ascii"))
    return kept
