"""What becomes of a store that is a copy: it goes on as somebody who was away, not as the one who went on."""

from __future__ import annotations

from msgspec.structs import replace

from sims.client.store import Change, Person, Saved
from sims.crypto.conversation import Conversation
from sims.crypto.identity import Identity
from sims.crypto.prekeys import OwnPrekeys
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, LocalError, PeerError


def start_anew(saved: Saved, entropy: ModernEntropy) -> Change:
    """What to change in a copy before anything is sealed with it: the original may have used every key in it.

    As when the server's epoch shows it (protocol.rst, "connect"): nothing is sent on any session that is in it, what is
    said next goes in a new stream, and new keys are published, with numbers that no other has. Without this, too, no
    nonce would be used twice; and the server may have forgotten the epoch, or keep it to itself.

    :raises LocalError: ``unavailable``: another version of this program wrote it.
    """
    private = saved.values.get("identity")
    if private is None:
        return Change()
    identity = Identity(private[:32], private[32:])
    change = Change(values={"outdated": b"1"}, people={}, conversations={})
    try:
        if "prekeys" in saved.values:
            prekeys = OwnPrekeys.load(saved.values["prekeys"])
            prekeys.restored(entropy)
            change.values["prekeys"] = prekeys.dump()
        for peer, dump in saved.conversations.items():
            conversation = Conversation.load(identity, dump)
            conversation.restored(entropy)
            change.conversations[peer] = conversation.dump()
            change.people[peer] = replace(saved.people.get(peer) or Person(id=peer), renewed=True)
    except PeerError:
        raise LocalError(Code.UNAVAILABLE, "the profile was written by another version of this program") from None
    return change
