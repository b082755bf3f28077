"""TLS, for both wings: 1.3 only, a post-quantum key agreement, and the binding that connect signs (RFC 9266).

The certificate says nothing about who the server is: connect does. So a client takes any, unless its user wants chain
and name verified as well. What has to be right is the group, which is looked at once the handshake is over, and the
binding, by which connect notices somebody between two TLS connections.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from ipaddress import ip_address
from typing import Any, cast

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
    ITransport,
)
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sims.errors import Code, LocalError, PeerError
from sims.transport import write_at_once

#: The key agreement that is taken unless others are allowed by name.
GROUP = "X25519MLKEM768"
BINDING_SIZE = 32

_BINDING_LABEL = b"EXPORTER-Channel-Binding"
_RECORD_HEADER = 5
_GROUP_NAME = re.compile(r"[A-Za-z0-9_]{1,40}", re.ASCII)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def group_names(text: str) -> tuple[str, ...]:
    """The groups in ``NAME[:NAME]…``, as ``--tls-groups`` takes them.

    :raises LocalError: ``malformed``, for what is no name.
    """
    names = tuple(text.split(":"))
    if not all(_GROUP_NAME.fullmatch(name) for name in names):
        raise LocalError(Code.MALFORMED, f"the groups of TLS are names with a colon between them, not {text!r}")
    return names


def binding(transport: ITransport | None, groups: Sequence[str] = (GROUP,)) -> bytes:
    """The channel binding of a TLS connection whose handshake is over: 32 bytes.

    :param groups: the key agreements that are allowed.
    :raises PeerError: ``policy``, when it was made with another one, or with something older than TLS 1.3.
    """
    if not isinstance(transport, TLSMemoryBIOProtocol):
        raise PeerError(Code.POLICY, "this connection is no TLS connection")
    connection = cast("SSL.Connection", transport.getHandle())
    if connection.get_protocol_version() != SSL.TLS1_3_VERSION:
        raise PeerError(Code.POLICY, "this connection is older than TLS 1.3")
    group = connection.get_group_name() or ""
    if group.lower() not in {name.lower() for name in groups}:
        raise PeerError(Code.POLICY, "the key agreement of this TLS connection is not one that is allowed here")
    return connection.export_keying_material(_BINDING_LABEL, BINDING_SIZE, b"")


def is_tls(transport: ITransport | None) -> bool:
    """Whether a protocol's transport is TLS, so that it has to wait for the handshake."""
    return isinstance(transport, TLSMemoryBIOProtocol)


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    # To resume would do without a new key agreement: nothing is kept that one could resume from. (TLS 1.3 may send its
    # tickets all the same; the library has no way to say none.) Buffers are for connections that say something.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


class _Records(TLSMemoryBIOProtocol):
    """TLS that asks for no more where there can be none.

    Twisted asks OpenSSL after every read whether there is more to read, and then whether there is something to write;
    that there is not takes it two exceptions to hear. Where what came is one record, from its first byte to its last,
    and was application data, it is not asked.
    """

    _missing = 0  # how much of a record that was begun is still to come
    _head = b""  # of a record of which less than that has come, that much

    def dataReceived(self, data: bytes) -> None:
        """As IProtocol."""
        is_record = not self._missing and not self._head and _record_size(data) == len(data)
        if not is_record:
            self._follow(self._head + data)
        if not is_record or not self._handshakeDone or self._appSendBuffer or self._lostTLSConnection:
            super().dataReceived(data)
            return
        self._tlsConnection.bio_write(data)
        try:
            text = self._tlsConnection.recv(len(data))
        except SSL.WantReadError:  # it said something to TLS itself, which may have an answer
            self._flushSendBIO()
        except SSL.ZeroReturnError:  # the end, which is there to be read again
            self._flushReceiveBIO()
        except SSL.Error:
            self._tlsShutdownFinished(Failure())
        else:
            if not self._aborted:
                self.wrappedProtocol.dataReceived(text)

    def _follow(self, data: bytes) -> None:
        """See where in a record it is that all this ends."""
        at = self._missing
        while at + _RECORD_HEADER <= len(data):
            at += _record_size(data[at : at + _RECORD_HEADER])
        self._missing = max(0, at - len(data))
        self._head = data[at:]


def _record_size(data: bytes) -> int:
    """The size of the record that begins here, its header included (RFC 8446, section 5.1); 0 if that is not known."""
    return _RECORD_HEADER + (data[3] << 8) + data[4] if len(data) >= _RECORD_HEADER else 0


# --- the server's half ------------------------------------------------------------------------------------------------


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """The certificate of a server, which may change while connections are open: each keeps what it began with."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Begin, with PEM texts as in :meth:`use`."""
        self._context = _server_context(certificate, key)

    def use(self, certificate: bytes, key: bytes) -> None:
        """Use these from the next connection on.

        :param certificate: PEM: the certificate, and those between it and a root behind it, if there are any.
        :param key: PEM, not encrypted.
        :raises LocalError: ``malformed``, when they are not that, or do not belong together; nothing changes then.
        """
        self._context = _server_context(certificate, key)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N802, N803
        """As IOpenSSLServerConnectionCreator."""
        return SSL.Connection(self._context, None)


def _server_context(certificate: bytes, key: bytes) -> SSL.Context:
    context = _context()
    try:
        own, *chain = [_certificate(pem).to_cryptography() for pem in _CERTIFICATE.findall(certificate)]
        context.use_certificate(own)
        for link in chain:
            context.add_extra_chain_cert(link)
        # An empty passphrase: or else OpenSSL asks on the terminal for that of an encrypted key.
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, key, b"")
        context.use_privatekey(private)
        context.check_privatekey()
    except (SSL.Error, crypto.Error, ValueError, TypeError):
        raise LocalError(
            Code.MALFORMED, "not a certificate and its key, each in PEM and the key not encrypted"
        ) from None
    return context


@implementer(ITCPTransport, IConsumer)  # whatever else it is, the TLS above need not say so
class _Socket:
    """A TCP transport that writes at once, while it has nothing buffered: without another round of the reactor.

    Whatever else is asked of it, the transport itself is asked.

    :ivar holding: what is written waits for :meth:`release`, or for what is written once this is False again.
    """

    def __init__(self, transport: FileDescriptor) -> None:
        self.holding = False
        self._held = b""
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As ITransport."""
        if self.holding:
            self._held += data
        elif self._held:
            self._held += data
            self.release()
        else:
            write_at_once(self._transport, data)

    def release(self) -> None:
        """Write what is held, if there is any."""
        if self._held:
            held, self._held = self._held, b""
            write_at_once(self._transport, held)

    def loseConnection(self) -> None:
        """As ITransport."""
        self.release()
        self._transport.loseConnection()


class _TlsProtocol(_Records):
    """TLS that writes its records at once.

    But for those with which OpenSSL ends its handshake: nobody waits for them. They go out with the answer to what came
    together with the end of the handshake, or in the next turn of the reactor.
    """

    def makeConnection(self, transport: object) -> None:  # noqa: N802 - Twisted's name
        """As IProtocol."""
        super().makeConnection(_Socket(transport) if isinstance(transport, FileDescriptor) else transport)

    def dataReceived(self, data: bytes) -> None:
        """As IProtocol."""
        below = self.transport
        if self._handshakeDone or not isinstance(below, _Socket):
            super().dataReceived(data)
            return
        below.holding = True
        try:
            super().dataReceived(data)
        finally:
            below.holding = False
            if self._handshakeDone:
                self.factory._clock.callLater(0, below.release)
            else:
                below.release()


class _TlsFactory(TLSMemoryBIOFactory):
    # The connection gathers what it writes in one turn of the reactor; once is enough.
    protocol = _TlsProtocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        # The factory within may refuse the address. It does so before there is any TLS.
        inner: IProtocol | None = self.wrappedFactory.buildProtocol(addr)
        tls: Any = _TlsProtocol
        return None if inner is None else tls(self, inner)


def server_tls(factory: IProtocolFactory, tls: ServerTls, clock: IReactorTime) -> IProtocolFactory:
    """A factory that speaks TLS, around one that need not know but may refuse an address."""
    return cast("IProtocolFactory", _TlsFactory(tls, False, factory, clock))


# --- the client's half ------------------------------------------------------------------------------------------------


@implementer(IOpenSSLClientConnectionCreator)
class _ClientTls:
    """What a client asks of the server's certificate: nothing, as connect authenticates the channel, or everything."""

    def __init__(self, host: str, roots: Sequence[crypto.X509] | None) -> None:
        self._context = _context()
        self._is_address = _is_address(host)
        self._host = host if self._is_address else host.encode("idna").decode("ascii")
        self._verify = roots is not None
        store = self._context.get_cert_store()
        for root in roots or ():
            if store is not None:
                store.add_cert(root)

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N802, N803
        connection = SSL.Connection(self._context, None)
        if not self._is_address:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._is_good)
        else:
            connection.set_verify(SSL.VERIFY_NONE)
        return connection

    def _is_good(self, _connection: object, certificate: crypto.X509, _error: int, depth: int, ok: int) -> bool:
        # Twisted's own options take a certificate without any name in it (its VerificationError is another one). Here
        # whatever goes wrong is a refusal.
        if not ok or depth:
            return bool(ok)
        named = IPAddress_ID(self._host) if self._is_address else DNS_ID(self._host)
        try:
            verify_service_identity(extract_patterns(certificate), [named], [])
        except (VerificationError, CertificateError, ValueError):
            return False
        return True


def client_tls(endpoint: IStreamClientEndpoint, host: str, ca: bytes | None = None) -> IStreamClientEndpoint:
    """An endpoint that speaks TLS over another one.

    A protocol behind it that provides ``IHandshakeListener`` hears when the handshake is over; then :func:`binding`
    says whether the key agreement is a good one. Nothing may be written to the connection before that.

    :param host: of the link: a name, or an address without brackets.
    :param ca: PEM, one certificate or several: whoever is there has to show a certificate for ``host`` that one of
        these has signed, or the handshake fails with an ``SSL.Error``. Without, any certificate does.
    :raises LocalError: ``malformed``, when ``ca`` holds no certificate, or ``host`` cannot be one.
    """
    try:
        creator = _ClientTls(host, None if ca is None else _roots(ca))
    except (crypto.Error, SSL.Error, ValueError):
        raise LocalError(Code.MALFORMED, "not a certificate in PEM, or not the name of a host") from None
    return cast("IStreamClientEndpoint", _TlsEndpoint(creator, endpoint))


class _GatheringTls(_Records, BufferingTLSTransport):
    """TLS that says what comes at once, though it comes in several records."""

    def dataReceived(self, data: bytes) -> None:
        """As IProtocol; around it stands ``together()`` of the protocol within, if it has one."""
        with getattr(self.wrappedProtocol, "together", nullcontext)():
            super().dataReceived(data)


class _GatheringFactory(TLSMemoryBIOFactory):
    protocol = _GatheringTls


@implementer(IStreamClientEndpoint)
class _TlsEndpoint:
    """As Twisted's ``wrapClientTLS``, with another protocol."""

    def __init__(self, creator: IOpenSSLClientConnectionCreator, endpoint: IStreamClientEndpoint) -> None:
        self._creator = creator
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - Twisted's name
        """As IStreamClientEndpoint."""
        factory = _GatheringFactory(self._creator, True, protocolFactory)
        connected: Deferred[Any] = self._endpoint.connect(cast("IProtocolFactory", factory))
        return connected.addCallback(lambda tls: tls.wrappedProtocol)


def _roots(ca: bytes) -> list[crypto.X509]:
    found = [_certificate(pem) for pem in _CERTIFICATE.findall(ca)]
    if not found:
        raise LocalError(Code.MALFORMED, "there is no certificate in this file")
    return found


def _certificate(pem: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_PEM, pem)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
