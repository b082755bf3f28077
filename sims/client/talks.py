"""Conversations at the user's end: what is to be said becomes messages, and messages become what was said.

Everything here works on copies and swaps them in when it has gone through, so that whatever is refused changes nothing;
the :class:`~sims.client.ledger.Ledger` hears what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import UNSET

from sims import inner
from sims.client.ledger import Ledger
from sims.client.outbox import Outbox
from sims.client.store import Letter
from sims.crypto.content import Said
from sims.crypto.conversation import Arrived, Conversation
from sims.crypto.identity import Identity
from sims.crypto.prekeys import Bundle, OneTimeKey, OwnPrekeys
from sims.crypto.primitives import ModernEntropy
from sims.crypto.session import Outgoing, incoming
from sims.crypto.streams import Stream
from sims.errors import LocalError
from sims.inner import ClientCom, ClientConnect
from sims.specs import ModernSpec

_MID_SIZE = 16
#: So many numbers of missing contents are told.
MOST_MISSING = 20


class Talks:
    """All conversations of one user.

    :param post: takes a letter that was sealed and can go out.
    """

    def __init__(
        self,
        identity: Identity,
        specs: Sequence[ModernSpec],
        prekeys: OwnPrekeys,
        saved: Mapping[str, bytes],
        outbox: Outbox,
        ledger: Ledger,
        *,
        now: Callable[[], int],
        entropy: ModernEntropy,
        post: Callable[[Letter], None],
    ) -> None:
        self.prekeys = prekeys
        self._identity = identity
        self._specs = tuple(specs)
        self._saved = dict(saved)  # not loaded yet
        self._loaded: dict[str, Conversation] = {}
        self._outbox = outbox
        self._ledger = ledger
        self._now = now
        self._entropy = entropy
        self._post = post

    def __repr__(self) -> str:
        return f"<{len({*self._saved, *self._loaded})} conversations>"

    def find(self, person: str) -> Conversation | None:
        """The conversation with an id, if there is one."""
        found = self._loaded.get(person)
        if found is None and person in self._saved:
            found = self._loaded[person] = Conversation.load(self._identity, self._saved.pop(person))
        return found

    def has(self, person: str) -> bool:
        """Whether anything was ever said between this id and us."""
        return person in self._loaded or person in self._saved

    def all(self) -> Iterable[Conversation]:
        """Every conversation."""
        return [found for person in {*self._saved, *self._loaded} if (found := self.find(person)) is not None]

    def _copy(self, person: str) -> Conversation:
        """A copy to work on, of a new one if there is none.

        :raises LocalError: ``policy``, for one's own id.
        """
        found = self.find(person)
        return Conversation.new(self._identity, person, self._entropy) if found is None else found.copy()

    def _keep(self, conversation: Conversation) -> None:
        self._loaded[conversation.peer_id] = conversation
        self._ledger.conversation(conversation)

    def needs_bundle(self, person: str) -> bool:
        """Whether a session has to be begun before anything can be said to an id."""
        found = self.find(person)
        return found is None or found.needs_bundle

    # --- saying -------------------------------------------------------------------------------------------------------

    def start(self, bundle: Bundle, one_time_key: OneTimeKey | None, person: str) -> bytes:
        """Begin a session with an id to its bundle; gives its th1. Phase 1 goes out with what is sealed first.

        :raises PeerError: as :meth:`Conversation.start`.
        """
        changed = self._copy(person)
        session = changed.start(self._specs, bundle, one_time_key, now=self._now(), entropy=self._entropy)
        self._keep(changed)
        return session

    def say(self, letter: Letter) -> None:
        """Seal the text of a letter, or once more what was sealed before, and post it.

        :raises LocalError: it cannot be said: ``too-large``.
        """
        changed = self._copy(letter.to)
        content = letter.content or changed.text(letter.text or "", letter.id, self._now())
        self._seal(letter, changed, content)

    def receipt(self, person: str, session: bytes, ids: Sequence[bytes], *, read: bool = False) -> bool:
        """Tell that texts have come, on the session that brought them, or where that is no more on the present one.

        False, and nothing has happened, where there is none.
        """
        changed = self._copy(person)
        on = session if changed.can_send(session) else None
        if on is None and changed.needs_bundle:
            return False
        content = changed.receipt(ids, "read" if read else "delivered", self._now())
        self._seal(self._new(person), changed, content, on)
        return True

    def can_hear(self, person: str, session: bytes) -> bool:
        """Whether there is a session that a receipt for what came on this one can go on."""
        found = self.find(person)
        return found is not None and (found.can_send(session) or not found.needs_bundle)

    def greet(self, person: str) -> None:
        """Open the conversation with nothing to say yet: phase 1 has to carry something."""
        changed = self._copy(person)
        self._seal(self._new(person), changed, changed.receipt((), "delivered", self._now()))

    def answer(self, person: str, session: bytes) -> None:
        """Send the phase that is due on a session."""
        self._seal(self._new(person), self._copy(person), None, session)

    def disconnect(self, person: str) -> None:
        """Tell that the conversation ends."""
        changed = self._copy(person)
        self._seal(self._new(person), changed, changed.disconnect(self._now()))

    def ask_again(self, person: str, mid: bytes, session: bytes) -> None:
        """Tell on a session begun for it that a message could not be opened."""
        changed = self._copy(person)
        self._seal(self._new(person), changed, changed.unreadable(mid, self._now()), session)

    def missing(self, person: str, session: bytes, said: Said) -> tuple[int, ...]:
        """The numbers of what is missing before a content that came, in its stream: the first of them.

        Empty, if nothing is: then what came before it was another than its sender says.
        """
        stream = self._stream(person, session, said)
        found: list[int] = []
        at = stream.seq + 1
        for run in stream.runs:
            if run.first > said.seq:
                break
            found.extend(range(at, min(run.first, at + MOST_MISSING)))
            at = run.last + 1
        found.extend(range(at, min(said.seq, at + MOST_MISSING)))
        return tuple(found[:MOST_MISSING])

    def is_whole(self, person: str, session: bytes, said: Said) -> bool:
        """Whether nothing is missing in the stream of a content that came."""
        return not self._stream(person, session, said).runs

    def _stream(self, person: str, session: bytes, said: Said) -> Stream:
        conversation = self.find(person)
        return Stream(stream=said.stream) if conversation is None else conversation.stream(session, said.stream)

    def empty(self, person: str) -> None:
        """Keep of a conversation nothing that was said, as :meth:`Conversation.empty`."""
        found = self.find(person)
        if found is not None:
            changed = found.copy()
            changed.empty()
            self._keep(changed)

    def renew(self, person: str) -> None:
        """Something that was sealed will never arrive: what follows goes in a new stream, on a new session."""
        found = self.find(person)
        if found is not None:
            changed = found.copy()
            changed.restored(self._entropy)
            self._keep(changed)

    def set_aside(self, person: str, session: bytes) -> None:
        """Nothing is said on other sessions than this one, as :meth:`Conversation.set_aside`."""
        found = self.find(person)
        if found is not None:
            changed = found.copy()
            changed.set_aside(session)
            self._keep(changed)

    def restored(self) -> None:
        """The store was restored from a copy: new keys get numbers that those made since then do not have."""
        prekeys = self.prekeys.copy()
        prekeys.restored(self._entropy)
        self.keep_prekeys(prekeys)

    def forget(self, person: str) -> None:
        """Somebody is known no more."""
        self._saved.pop(person, None)
        self._loaded.pop(person, None)

    def expire(self) -> None:
        """Let go what is too old; to be called once a day."""
        for found in self.all():
            changed = found.copy()
            changed.expire(self._now())
            self._keep(changed)

    def forget_prekeys(self, emptied: int) -> None:
        """Let go old private halves; to be called once a day.

        :param emptied: when the mailbox was last found empty, Unix seconds.
        """
        prekeys = self.prekeys.copy()
        prekeys.forget(self._now(), emptied)
        self.keep_prekeys(prekeys)

    def keep_prekeys(self, prekeys: OwnPrekeys) -> None:
        """One's own prekeys have changed."""
        self.prekeys = prekeys
        self._ledger.state("prekeys", lambda: self.prekeys.dump())

    def _new(self, person: str) -> Letter:
        return self._outbox.add(Letter(number=0, to=person, time=self._now()))

    def _seal(self, letter: Letter, changed: Conversation, content: bytes | None, session: bytes | None = None) -> None:
        try:
            sent = changed.seal(content, self._entropy, session)
        except LocalError:
            if not letter.id:
                self._outbox.drop(letter)
            raise
        self._keep(changed)
        letter.text = None
        letter.mid = self._entropy.octets(_MID_SIZE)
        letter.content = content
        letter.session = sent.session
        letter.inner = inner.encode(self._message(letter, sent.message))
        self._outbox.note(letter)
        self._post(letter)

    def _message(self, letter: Letter, out: Outgoing) -> ClientConnect | ClientCom:
        data = inner.pack(out.data)
        if out.phase is None:
            return ClientCom(src=self._identity.id, dst=letter.to, mid=letter.mid, data=data)
        ciphers = UNSET if out.ciphers is None else out.ciphers
        return ClientConnect(
            src=self._identity.id, dst=letter.to, mid=letter.mid, phase=out.phase, ciphers=ciphers, data=data
        )

    # --- hearing ------------------------------------------------------------------------------------------------------

    def open(self, message: ClientConnect | ClientCom) -> Arrived:
        """Open what has come.

        :raises PeerError: it cannot be opened; nothing has changed.
        """
        data = msgspec.msgpack.decode(message.data)
        if isinstance(message, ClientConnect):
            ciphers = None if message.ciphers is UNSET else message.ciphers
            came = incoming(message.src, message.dst, message.phase, ciphers, data)
        else:
            came = incoming(message.src, message.dst, None, None, data)
        changed, prekeys = self._copy(message.src), self.prekeys.copy()
        arrived = changed.open(came, prekeys, self._specs, now=self._now(), entropy=self._entropy)
        self._keep(changed)
        if isinstance(message, ClientConnect) and message.phase == 1:
            self.keep_prekeys(prekeys)
        return arrived
