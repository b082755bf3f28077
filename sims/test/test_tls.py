"""TLS, between two ends in memory: which version, which key agreement, whose certificate."""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sims import tls
from sims.crypto.certificate import self_signed
from sims.errors import Code, LocalError, PeerError
from sims.test.certificates import authority, signed
from sims.test.modern_network import Hand, ModernNetwork
from sims.test.network import Network, Stream

NOW = 1_800_000_000
OWN = self_signed(NOW)


@implementer(IHandshakeListener)
class End(Protocol):
    """One end, which notes its binding, or the code with which it is refused."""

    def __init__(self, groups: tuple[str, ...] = (tls.GROUP,)) -> None:
        self.groups = groups
        self.binding: bytes | Code | None = None
        self.received = b""
        self.lost: BaseException | None = None

    def handshakeCompleted(self) -> None:  # noqa: N802
        try:
            self.binding = tls.binding(self.transport, self.groups)
        except PeerError as error:
            self.binding = error.code

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = reason.value if reason is not None else None

    @property
    def connection(self) -> SSL.Connection:
        """OpenSSL's side of it."""
        return cast("SSL.Connection", cast("Any", self.transport).getHandle())


class ClientContext:
    """A client of another make."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def clientConnectionForTLS(self, _: object) -> SSL.Connection:  # noqa: N802
        return SSL.Connection(self.context, None)


class TlsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.server_tls = tls.ServerTls(*OWN)

    def pair(
        self,
        host: str = "localhost",
        ca: bytes | None = None,
        context: SSL.Context | None = None,
        groups: tuple[str, ...] = (tls.GROUP,),
    ) -> tuple[End, End]:
        """A client and a server, after their handshake."""
        client, server = End(groups), End(groups)
        factory = cast("Any", tls.server_tls(cast("Any", once(server)), self.server_tls, self.network.clock))
        if context is None:
            roots = None if ca is None else tls._roots(ca)
            creator: Any = tls._ClientTls(host, roots)
        else:
            creator = _creator(context)
        wrapped = TLSMemoryBIOFactory(creator, True, once(client), cast("Any", self.network.clock))
        ends = [cast("IProtocol", cast("Any", one).buildProtocol(None)) for one in (wrapped, factory)]
        self.network.join(ends[0], ends[1], cast("Any", None))
        self.network.settle()
        return client, server


def once(protocol: Protocol) -> Factory[Protocol]:
    """Makes this one."""
    factory: Factory[Protocol] = Factory()
    cast("Any", factory).buildProtocol = lambda _: protocol
    return factory


def _creator(context: SSL.Context) -> Any:
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

    return implementer(IOpenSSLClientConnectionCreator)(ClientContext)(context)


class HandshakeTests(TlsTestCase):
    def test_binding(self) -> None:
        """Both ends have the same, of 32 bytes, and each connection another."""
        found = set()
        for _ in range(2):
            client, server = self.pair()
            self.assertEqual(client.binding, server.binding)
            assert isinstance(client.binding, bytes)
            self.assertEqual(len(client.binding), tls.BINDING_SIZE)
            self.assertEqual(client.connection.get_group_name(), "X25519MLKEM768")
            self.assertEqual(client.connection.get_protocol_version(), SSL.TLS1_3_VERSION)
            found.add(client.binding)
        self.assertEqual(len(found), 2)

    def test_nothing_older(self) -> None:
        """A client of TLS 1.2 is refused."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client, server = self.pair(context=context)
        self.assertEqual((client.binding, server.binding), (None, None))
        self.assertIsNotNone(client.lost)

    def test_other_groups(self) -> None:
        """Another key agreement is seen, and refused unless it is allowed."""
        context = SSL.Context(SSL.TLS_METHOD)
        only(context, b"X25519")
        _, server = self.pair(context=context)
        self.assertEqual(server.binding, Code.POLICY)
        _, server = self.pair(context=context, groups=("X25519MLKEM768", "x25519"))
        self.assertEqual(len(cast("bytes", server.binding)), 32)
        _, server = self.pair(groups=("X25519",))
        self.assertEqual(server.binding, Code.POLICY)

    def test_no_resumption(self) -> None:
        """A session that is offered again is not gone on with."""
        context = SSL.Context(SSL.TLS_METHOD)
        first, server = self.pair(context=context)
        cast("Any", server.transport).write(b"so that whatever the server sends after the handshake has come")
        self.network.settle()
        session = first.connection.get_session()
        assert session is not None

        class Again(ClientContext):
            def clientConnectionForTLS(self, _: object) -> SSL.Connection:  # noqa: N802
                connection = SSL.Connection(self.context, None)
                connection.set_session(cast("SSL.Session", session))
                return connection

        self.patch(ClientContext, "clientConnectionForTLS", Again.clientConnectionForTLS)
        second, _ = self.pair(context=context)
        self.assertEqual(len(cast("bytes", second.binding)), 32)
        self.assertNotEqual(second.connection.master_key(), first.connection.master_key())
        self.assertIsNotNone(second.connection.get_peer_certificate())
        self.assertFalse(_reused(second.connection))

    def test_no_tls(self) -> None:
        """There is no binding without TLS."""
        self.assertFalse(tls.is_tls(None))
        with self.assertRaises(PeerError) as caught:
            tls.binding(None)
        self.assertEqual(caught.exception.code, Code.POLICY)

    def test_an_address_that_is_refused(self) -> None:
        """The factory within may refuse, before there is any TLS."""
        none: Factory[Protocol] = Factory()
        cast("Any", none).buildProtocol = lambda _: None
        factory = cast("Any", tls.server_tls(cast("Any", none), self.server_tls, Clock()))
        self.assertIsNone(factory.buildProtocol(None))


class CertificateTests(TlsTestCase):
    def test_any(self) -> None:
        """Without an authority any certificate is taken, for any host."""
        for host in ("localhost", "example.org", "127.0.0.1", "::1", "bücher.example"):
            client, _ = self.pair(host=host)
            self.assertIsInstance(client.binding, bytes, host)

    def test_authority(self) -> None:
        """With one, chain and name have to be right, also for addresses."""
        ca = authority("ca", NOW)
        for names, host, good in (
            (("example.org",), "example.org", True),
            (("*.example.org",), "chat.example.org", True),
            (("192.0.2.1",), "192.0.2.1", True),
            (("2001:db8::1",), "2001:db8::1", True),
            (("example.org",), "example.com", False),
            (("example.org",), "192.0.2.1", False),
            (("192.0.2.1",), "192.0.2.2", False),
            ((), "example.org", False),  # no name at all
        ):
            self.server_tls.use(*signed(ca, names, NOW))
            client, _ = self.pair(host=host, ca=ca.certificate)
            self.assertIs(isinstance(client.binding, bytes), good, f"{names} {host}")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_another_authority(self) -> None:
        ca, other = authority("ca", NOW), authority("ca", NOW)
        self.server_tls.use(*signed(ca, ("example.org",), NOW))
        self.assertIsNone(self.pair(host="example.org", ca=other.certificate)[0].binding)
        both = b"some text\n" + authority("other", NOW).certificate + b"\n" + ca.certificate
        self.assertIsInstance(self.pair(host="example.org", ca=both)[0].binding, bytes)

    def test_own_is_no_authority(self) -> None:
        self.assertIsNone(self.pair(ca=authority("ca", NOW).certificate)[0].binding)

    def test_chain(self) -> None:
        """What stands behind the certificate in its file is sent along."""
        root = authority("root", NOW)
        between = signed(root, (), NOW, is_authority=True)
        own = signed(between, ("example.org",), NOW)
        self.server_tls.use(own.certificate + between.certificate, own.key)
        self.assertIsInstance(self.pair(host="example.org", ca=root.certificate)[0].binding, bytes)
        self.server_tls.use(*own)
        self.assertIsNone(self.pair(host="example.org", ca=root.certificate)[0].binding)

    def test_bad_files(self) -> None:
        """What is no pair is refused, and changes nothing."""
        other = self_signed(NOW)
        encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
        for certificate, key in (
            (b"", OWN.key),
            (OWN.certificate, b""),
            (OWN.certificate, other.key),
            (OWN.key, OWN.certificate),
            (OWN.certificate, encrypted),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", OWN.key),
        ):
            with self.assertRaises(LocalError) as caught:
                self.server_tls.use(certificate, key)
            self.assertEqual(caught.exception.code, Code.MALFORMED)
        self.assertIsInstance(self.pair()[0].binding, bytes)

    def test_another_certificate(self) -> None:
        """From the next connection on; open ones go on."""
        before, server = self.pair()
        other = self_signed(NOW)
        self.server_tls.use(*other)
        after, _ = self.pair()
        self.assertNotEqual(_shown(before), _shown(after))
        cast("Any", server.transport).write(b"still here")
        self.network.settle()
        self.assertEqual(before.received, b"still here")

    def test_bad_arguments(self) -> None:
        endpoint = cast("Any", None)
        for host, ca in (
            ("localhost", b""),
            ("localhost", b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"),
        ):
            with self.assertRaises(LocalError):
                tls.client_tls(endpoint, host, ca)
        with self.assertRaises(LocalError):
            tls.client_tls(endpoint, "a" * 64 + ".example")
        for bad in ("", "X25519:", "X25519;P-256", "a b"):
            with self.assertRaises(LocalError):
                tls.group_names(bad)
        self.assertEqual(tls.group_names("X25519MLKEM768:x25519"), ("X25519MLKEM768", "x25519"))


class ConnectTests(TlsTestCase):
    """A server of sims/2 behind TLS."""

    def test_groups(self) -> None:
        """Whoever comes with another key agreement is refused before connect; others are bound to their connection."""
        for group, code in ((b"X25519MLKEM768", []), (b"X25519", ["policy"])):
            network = ModernNetwork()
            network.modern._secured = True
            hand = SecuredHand(network)
            context = SSL.Context(SSL.TLS_METHOD)
            only(context, group)
            hand.dial(context)
            if not code:
                hand.write(hand.greet(binding=tls.binding(hand.transport)))
                hand.write(hand.prove())
                self.assertIsNotNone(hand.joined)
                hand = SecuredHand(network)
                hand.dial(context)
                hand.write(hand.greet(binding=bytes(32)))
                with self.assertRaises(PeerError):
                    hand.prove()
            else:
                self.assertTrue(hand.closed)
                self.assertEqual(hand.clear, [])
            self.assertEqual(self.flushLoggedErrors(), [])


class SecuredHand(Hand):
    """A client by hand, behind TLS."""

    def __init__(self, network: ModernNetwork) -> None:
        reach = network.reach
        network.reach = lambda *_: None  # type: ignore[method-assign]
        super().__init__(network)
        network.reach = reach  # type: ignore[method-assign]

    def dial(self, context: SSL.Context) -> None:
        """Connect."""
        server = cast("Any", tls.server_tls(cast("Any", self.network.modern), tls.ServerTls(*OWN), self.network.clock))
        client = TLSMemoryBIOFactory(_creator(context), True, once(self), cast("Any", self.network.clock))
        ends = [cast("IProtocol", cast("Any", one).buildProtocol(None)) for one in (client, server)]
        self.network.join(ends[0], ends[1], cast("Any", None))
        self.network.settle()

    @property
    def stream(self) -> Stream:
        """The transport."""
        return cast("Stream", self.transport)


def only(context: SSL.Context, group: bytes) -> None:
    """Have a client offer one group alone: pyOpenSSL has no word for it."""
    from OpenSSL._util import lib

    assert lib.SSL_CTX_set1_curves_list(cast("Any", context)._context, group) == 1


def _reused(connection: SSL.Connection) -> bool:
    from OpenSSL._util import lib

    return bool(lib.SSL_session_reused(cast("Any", connection)._ssl)) if hasattr(lib, "SSL_session_reused") else False


def _shown(end: End) -> bytes:
    certificate = end.connection.get_peer_certificate()
    assert certificate is not None
    return certificate.digest("sha256")
