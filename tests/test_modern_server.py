"""The server's process as a server of sims/2: what it makes, prints and keeps, its certificate, its end."""

from __future__ import annotations

import os
import pty
import signal
import socket
import ssl
import stat
import time
from pathlib import Path

from OpenSSL import SSL
from twisted.trial.unittest import SkipTest

from sims.crypto.certificate import self_signed
from sims.crypto.identity import parse_server_link
from tests.modern_processes import ModernTestCase
from tests.peers.modern_client import ModernClient
from tests.peers.modern_primitives import RefusedError
from tests.processes import Process, Server

TLS = "tls:0:interface=127.0.0.1"
TCP = "tcp:0:interface=127.0.0.1"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def shown(port: int) -> bytes:
    """The certificate of a new connection, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 20) as sock, context.wrap_socket(sock) as secured:
        found = secured.getpeercert(binary_form=True)
    assert found is not None
    return found


def group(port: int) -> str | None:
    """The key agreement with a client that offers what OpenSSL does."""
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), socket.create_connection(("127.0.0.1", port), 20))
    connection.set_connect_state()
    connection.setblocking(True)
    connection.do_handshake()
    try:
        return connection.get_group_name()
    finally:
        connection.close()


class ModernServerTestCase(ModernTestCase):
    """Servers with a folder ``server``."""

    @property
    def folder(self) -> Path:
        return self.place.home / "server"

    def start(self, *args: str, lines: int = 1) -> Server:
        """A server that listens with TLS, unless told otherwise."""
        listen = [] if any(arg.startswith("--listen") for arg in args) else ["--listen", TLS]
        server = self.keep(Server(self.place, "--dir", str(self.folder), *listen, *args))
        return server.wait_ready(lines)

    def refused(self, *args: str) -> str:
        """What a server says that does not start: one line, with the status 1, and nothing else."""
        server = self.keep(Server(self.place, "--dir", str(self.folder), *args))
        self.assertEqual(server.wait_exit(), 1, server.describe(f"{args}"))
        self.assertEqual((server.out, len(server.complaints)), ([], 1), server.describe(f"{args}"))
        server.check_log()
        return server.complaints[0]

    def port(self, server: Server, line: int = -1) -> int:
        return parse_server_link(server.out[line]).addresses[0].port

    def join(self, link: str, name: str) -> ModernClient:
        """Somebody who registers."""
        return self.client(link, name)


class StartTests(ModernServerTestCase):
    def test_folder_and_link(self) -> None:
        """It makes what it needs, for its owner alone; a second start is the same, and so is its link."""
        server = self.start()
        self.assertEqual(mode(self.folder), 0o700)
        names = {path.name for path in self.folder.iterdir()}
        database = {f"server.{end}" for end in ("db", "db-wal", "db-shm", "reserve")}
        self.assertEqual(names, {"identity", "certificate.pem", "key.pem", "link", "lock"} | database)
        self.assertEqual({mode(self.folder / name) for name in names}, {0o600})
        self.assertEqual((self.folder / "link").read_text(), server.out[0] + "\n")
        certificate = shown(self.port(server))
        server.stop()
        again = self.start()
        self.assertEqual(parse_server_link(again.out[0]).id, parse_server_link(server.out[0]).id)
        self.assertEqual(again.out[0].partition("?")[2], server.out[0].partition("?")[2])
        self.assertEqual((self.folder / "link").read_text(), again.out[0] + "\n")
        self.assertEqual(shown(self.port(again)), certificate)
        self.join(again.out[0], "ann")
        for one in (server, again):
            one.check_log()
            said = "\n".join(one.err)
            self.assertNotIn(parse_server_link(one.out[0]).invite or "?", said)

    def test_invitations(self) -> None:
        """One is good once; then there is a new line, and a new link in the file."""
        server = self.start("--listen", TLS, "--listen", TCP, lines=2)
        self.assertTrue(server.out[0].startswith("sims://") and server.out[1].startswith("sims+tcp://"))
        first = [parse_server_link(line).invite for line in server.out]
        self.assertEqual(first[0], first[1])
        ann = self.join(server.out[1], "ann")
        server.wait_until(lambda: len(server.out) == 4 or None, "two more links")
        self.assertNotIn(parse_server_link(server.out[2]).invite, first)
        self.wait_for(lambda: (self.folder / "link").read_text() == server.out[2] + "\n", "the new link")
        with self.assertRaises(RefusedError) as caught:
            self.join(server.out[0], "bob")
        self.assertIn("invite-used", str(caught.exception))
        bob = self.join(server.out[2], "bob")
        self.converse(ann, bob, ("hello",))
        server.check_log()

    def test_registration(self) -> None:
        """Open: without an invitation. Closed: nobody new."""
        server = self.start("--registration", "open")
        self.assertIsNone(parse_server_link(server.out[0]).invite)
        self.join(server.out[0], "ann")
        server.stop()
        server = self.start("--registration", "closed")
        with self.assertRaises(RefusedError) as caught:
            self.join(server.out[0], "ann")
        self.assertIn("policy", str(caught.exception))

    def test_hosts(self) -> None:
        """--host, or the interface, or the machine's name."""
        for args, host in (
            (("--host", "chat.example.org"), "chat.example.org"),
            (("--host", "[2001:db8::1]"), "2001:db8::1"),
            (("--listen", "tls:0:interface=127.0.0.2"), "127.0.0.2"),
        ):
            server = self.start(*args)
            self.assertEqual(parse_server_link(server.out[0]).addresses[0].host, host)
            server.stop()
        server = self.start("--listen", "tls:0")
        host = parse_server_link(server.out[0]).addresses[0].host
        socket.create_connection((host, self.port(server)), 10).close()

    def test_ipv6(self) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError as error:
            raise SkipTest(f"there is no IPv6 loopback here: {error}") from None
        server = self.start("--listen", "tcp:0:interface=[::1]")
        self.assertTrue(server.out[0].startswith("sims+tcp://[::1]:"))
        self.join(server.out[0], "ann")

    def test_beside_the_seed(self) -> None:
        """Both kinds of listeners in one server: two worlds."""
        server = self.start("--seed-listen", TCP, lines=2)
        found = sorted(line.partition(":")[0] for line in server.out)
        self.assertEqual(found, ["sims", "sims-seed"])
        line = next(line for line in server.out if line.startswith("sims-seed"))
        self.start_peer(int(line.rpartition(":")[2]), "ann", 1)

    def test_terminal(self) -> None:
        """On a terminal there is a code for a telephone; elsewhere none."""
        master, slave = pty.openpty()
        args = ["sims-server", "--dir", str(self.folder), "--listen", TLS]
        server = self.keep(Process(self.place, args, stdout=slave, reading=False))
        os.close(slave)
        said = b""
        deadline = time.monotonic() + 60
        while said.count("█".encode()) < 100 and time.monotonic() < deadline:
            said += os.read(master, 65_536)
        server.stop()
        os.close(master)
        self.assertTrue(said.startswith(b"sims://"))


class RefusedTests(ModernServerTestCase):
    def test_options(self) -> None:
        """What makes no sense: one line that says what."""
        for args, part in (
            (("--limit", "nothing=5"), "NAME one of"),
            (("--limit", "sends=fast"), "--limit sends takes A-SECOND/BURST, or none; not 'fast'"),
            (("--registration", "maybe"), "invite, open, closed"),
            (("--certificate", "x"), "go together"),
            (("--listen", "ssl:5"), "cannot listen on 'ssl:5'"),
            (("--host", "a b"), "'a b'"),
            (("--tls-groups", "a,b"), "'a,b'"),
            (("--certificate", "/no/file", "--key", "/no/file", "--listen", TLS), "there is no file /no/file"),
        ):
            self.assertIn(part, self.refused(*args))

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            named = f"tls:{taken.getsockname()[1]}:interface=127.0.0.1"
            self.assertIn(f"cannot listen on {named}: Address already in use", self.refused("--listen", named))
            self.refused("--listen", TCP, "--listen", named)

    def test_one_server_a_folder(self) -> None:
        server = self.start()
        self.assertIn(f"another server runs in {self.folder}", self.refused("--listen", TLS))
        link = (self.folder / "link").read_text()
        self.assertEqual(link, server.out[0] + "\n")
        server.popen.kill()
        server.wait_exit()
        self.start()  # whatever way the first one ended

    def test_broken_files(self) -> None:
        self.folder.mkdir(mode=0o700)
        (self.folder / "identity").write_bytes(b"x")
        self.assertIn("is not an identity", self.refused("--listen", TLS))
        (self.folder / "identity").unlink()
        for name in ("certificate.pem", "key.pem"):
            (self.folder / name).write_bytes(b"x")
        self.assertIn("not a certificate and its key", self.refused("--listen", TLS))


class TlsTests(ModernServerTestCase):
    def test_group(self) -> None:
        """X25519MLKEM768 unless others are allowed; whoever comes with another one is closed after the handshake."""
        server = self.start()
        port = self.port(server)
        self.assertEqual(group(port), "X25519MLKEM768")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ecdh_curve("prime256v1")
        with socket.create_connection(("127.0.0.1", port), 20) as sock, context.wrap_socket(sock) as secured:
            self.assertEqual(secured.version(), "TLSv1.3")
            self.assertEqual(secured.recv(100), b"")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", port), 20) as sock, self.assertRaises((ssl.SSLError, OSError)):
            context.wrap_socket(sock)
        self.wait_for(lambda: any("key agreement" in line for line in server.err), "a line in the log")
        self.join(server.out[-1], "ann")
        server.check_log()
        server.stop()
        server = self.start("--tls-groups", "X25519MLKEM768:secp256r1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ecdh_curve("prime256v1")
        with (
            socket.create_connection(("127.0.0.1", self.port(server)), 20) as sock,
            context.wrap_socket(sock) as secured,
        ):
            secured.sendall(b"[]\n\n")
            self.assertIn(b"malformed", secured.recv(1000))

    def test_certificate(self) -> None:
        """SIGHUP reads it again: connections stay, new ones see the new one; a bad file changes nothing."""
        files = [self.place.home / name for name in ("certificate", "key")]

        def write(parts: tuple[bytes, bytes]) -> None:
            for path, part in zip(files, parts, strict=True):
                path.write_bytes(part)

        write(self_signed(time.time()))
        server = self.start("--certificate", str(files[0]), "--key", str(files[1]), "--registration", "open")
        port = self.port(server)
        self.assertFalse((self.folder / "key.pem").exists())
        before = shown(port)
        ann, bob = (self.join(server.out[0], name) for name in ("ann", "bob"))
        write(self_signed(time.time()))
        self.assertEqual(shown(port), before)
        server.send_signal(signal.SIGHUP)
        self.wait_for(lambda: shown(port) != before, "the new certificate")
        self.converse(ann, bob, ("still here",))
        server.check_log()
        now = shown(port)
        write((b"rubbish", b"rubbish"))
        server.send_signal(signal.SIGHUP)
        server.wait_until(
            lambda: any("the certificate stays as it was" in line for line in server.err) or None, "a line in the log"
        )
        self.assertEqual(shown(port), now)
        self.converse(ann, bob, ("and still",))


class EndTests(ModernServerTestCase):
    def test_signals(self) -> None:
        """It ends cleanly with clients connected, and starts again on the same port at once."""
        port = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.start("--listen", f"tls:{port}:interface=127.0.0.1", "--registration", "open")
            port = self.port(server)
            for name in ("ann", "bob"):
                self.join(server.out[0], f"{name}{int(number)}")
            began = time.monotonic()
            status = server.stop(number)
            self.assertLess(time.monotonic() - began, 3)
            self.assertIn(status, (0, -number))
            server.check_log()
