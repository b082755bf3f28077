"""The server's links, all with one invitation of the server's own; a new one is made when that is spent."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence

from sims.crypto.identity import Address, ServerLink
from sims.crypto.primitives import ModernEntropy
from sims.server.interfaces import Invitation, Invitations
from sims.server.registration import TOKEN_SIZE, Mode, hashed


class Links:
    """One link for each listener: the same server, the same invitation.

    :param told: called with all links whenever there are new ones.
    :param last: the invitation of an earlier run, which stays the one of the links while it is good.
    """

    def __init__(
        self,
        store: Invitations,
        server: str,
        mode: Mode,
        entropy: ModernEntropy,
        told: Callable[[Sequence[ServerLink]], None],
        last: str | None = None,
    ) -> None:
        self._store = store
        self._server = server
        self._mode = mode
        self._entropy = entropy
        self._told = told
        self._token = last
        self._places: Sequence[tuple[Address, bool]] = ()

    def __repr__(self) -> str:
        return f"<links to {self._server}>"

    def begin(self, places: Sequence[tuple[Address, bool]]) -> None:
        """The server listens there, each with TLS or not."""
        self._places = places
        self._look(self._tell)

    def spent(self) -> None:
        """An invitation was spent: if it was that of the links, they need another."""
        self._look(lambda _: None)

    def _look(self, good: Callable[[str], object]) -> None:
        token = self._token
        if self._mode is not Mode.INVITE or token is None:
            self.renew()
            return

        def found(invitation: Invitation | None) -> None:
            if token is not self._token:
                return  # there is another by now
            if invitation is not None and invitation.uses:
                good(token)
            else:
                self.renew()

        self._store.invitation(hashed(token), found)

    def renew(self) -> None:
        """Make a new invitation, where one is needed, and tell."""
        if self._mode is not Mode.INVITE:
            self._tell(None)
            return
        token = urlsafe_b64encode(self._entropy.octets(TOKEN_SIZE)).rstrip(b"=").decode("ascii")
        self._token = token
        self._store.invite(hashed(token), lambda _: self._tell(token))

    def _tell(self, token: str | None) -> None:
        links = [ServerLink((address,), self._server, token, tls) for address, tls in self._places]
        if links:
            self._told(links)
