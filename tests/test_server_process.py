"""The server's process: how it starts, what it says and where, what it leaves, how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest

from sims import __version__
from tests.peers.seed_peer import SeedPeer
from tests.processes import LOOPBACK, TIMEOUT, Place, ProcessTestCase, Server
from tests.talk import next_event, say

TWISTD = ("twistd", "-n", "sims-server")
#: What peers write, which must not be in a log.
SECRETS = ("Sesame-name", "Sesame-text", "Sesame-frame", "Sesame-inner", "Sesame-cipher")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class ListenerTests(ProcessTestCase):
    """Where it listens, and what it says of it."""

    def test_default(self) -> None:
        """Without a listener named: sims/2 with TLS on its port, on all interfaces, and nothing of the seed's."""
        try:
            _listen("0.0.0.0", 7467).close()  # noqa: S104
        except OSError as error:
            raise SkipTest(f"tcp 7467 is taken: {error}") from None
        for command in (TWISTD, ("sims-server",)):
            server = self.keep(Server(self.place, command=command)).wait_ready()
            self.assertRegex(server.out[0], r"\Asims://[^/:]+:7467/[a-z2-7]{32}\?invite=[\w-]+\Z")
            for host in ("127.0.0.1", "127.0.0.2"):
                socket.create_connection((host, 7467), 5).close()
            try:
                socket.create_connection(("::1", 7467), 5).close()
            except OSError as error:
                if socket.has_dualstack_ipv6():
                    raise AssertionError(f"not on IPv6: {error}") from None
            server.stop()
            self.assertEqual(len(server.out), 1)

    def test_several(self) -> None:
        """Each listener has its line, in the order given, with the port that it really has; all are one server."""
        server = self.start_server("--seed-listen", LOOPBACK, "--seed-listen", LOOPBACK, "--seed-listen", LOOPBACK)
        ports = [port for _, port in server.addresses]
        self.assertEqual([host for host, _ in server.addresses], ["127.0.0.1"] * 3)
        self.assertEqual(len({*ports} - {0}), 3)
        peers = [self.start_peer(port, f"peer{port}", port) for port in ports]
        self.assertEqual({entry["id"] for entry in peers[0].list()}, {*ports})

    def test_named_port(self) -> None:
        """A port that is named is the one that is used."""
        with _listen("127.0.0.1", 0) as probe:
            port = probe.getsockname()[1]
        server = self.start_server("--seed-listen", f"tcp:{port}:interface=127.0.0.1")
        self.assertEqual(server.addresses, [("127.0.0.1", port)])

    def test_ipv6(self) -> None:
        """An IPv6 address is printed in brackets, and clients take the printed address."""
        try:
            _listen("::1", 0).close()
        except OSError as error:
            raise SkipTest(f"there is no IPv6 loopback here: {error}") from None
        server = self.start_server("--seed-listen", r"tcp6:0:interface=\:\:1")
        self.assertRegex(server.out[0], r"\Asims-seed://\[::1\]:[0-9]+\Z")
        self.start_peer(server.port, "ann", 1, host="::1")
        console = self.start_console(server.out[0], "bob").ready()
        console.do("list")
        self.assertIn({"id": "1", "name": "ann"}, console.take("list")["clients"])

    def test_bad_endpoint(self) -> None:
        """A description that is none: one line that names it, an exit status, nothing else."""
        bad = ("bogus", "tcp", "tcp:8x", "tcp:99999:interface=127.0.0.1", "nosuch:8080")
        started = [
            (named, self.keep(Server(self.place, "--seed-listen", named, command=command)))
            for command in (("sims-server",), TWISTD)
            for named in bad
        ]
        for named, server in started:
            self._check_refused(named, server)
            self.assertNotEqual(server.popen.returncode, 0, server.describe("the exit status"))

    def test_unknown_option(self) -> None:
        """An option that is none is named; nothing listens."""
        server = self.keep(Server(self.place, "--no-such-option"))
        self.assertNotEqual(server.wait_exit(), 0)
        said = "\n".join(server.out + server.err)
        self.assertIn("no-such-option", said)
        self.assertNotIn("Traceback", said)

    def test_port_in_use(self) -> None:
        """A port that is taken: one line, the exit status 1, and no other listener either."""
        with _listen("127.0.0.1", 0) as taken:
            taken_port = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            server = self.keep(Server(self.place, "--seed-listen", LOOPBACK, "--seed-listen", taken_port))
            under_twistd = self.keep(Server(self.place, "--seed-listen", taken_port, command=TWISTD))
            self._check_refused(taken_port, server)
            self._check_refused(taken_port, under_twistd)
            self.assertEqual(server.popen.returncode, 1, server.describe("the exit status"))

    def _check_refused(self, named: str, server: Server) -> None:
        server.wait_exit()
        self.assertEqual(server.out, [], server.describe("standard output is for addresses"))
        self.assertEqual(len(server.complaints), 1, server.describe("not one line"))
        self.assertIn(named, server.complaints[0])
        server.check_log()


class OutputTests(ProcessTestCase):
    """What it writes, where."""

    def test_version(self) -> None:
        """Both commands, both ways, say the same."""
        for command in (
            ["sims-server"],
            ["sims-client"],
            ["twistd", "-n", "sims-server"],
            ["twistd", "sims-server"],
            ["twistd", "-n", "sims-client"],
        ):
            server = self.keep(Server(self.place, "--version", command=command))
            self.assertEqual(server.wait_exit(), 0, server.describe(f"{command}"))
            self.assertEqual((server.out, server.err), ([f"sims {__version__}"], []))
        self._check_empty(self.place.cwd)

    def test_help(self) -> None:
        """It names every option."""
        for command in (["sims-server"], ["twistd", "-n", "sims-server"]):
            server = self.keep(Server(self.place, "--help", command=command))
            self.assertEqual(server.wait_exit(), 0, server.describe("--help"))
            for option in ("--dir", "--listen", "--seed-listen", "--host", "--limit", "--logfile", "--help"):
                self.assertIn(option, "\n".join(server.out))
            self.assertEqual(server.err, [])

    def test_log_on_standard_error(self) -> None:
        """Standard output holds addresses only; the log goes to standard error; the working folder stays empty."""
        for command in (TWISTD, ("sims-server",)):
            server = self.start_server(command=command)
            self._use(server.port)
            server.stop()
            self.assertEqual(len(server.out), 1, server.describe("not addresses only"))
            self.assertEqual(len(server.addresses), 1)
            self.assertTrue(any("client 1 connected from 127.0.0.1" in line for line in server.err))
            self.assertEqual(server.complaints, [])
            self._check_empty(self.place.cwd)

    def test_logfile(self) -> None:
        """``--logfile`` takes the log, as twistd's option and as the command's own."""
        for number, command in enumerate(
            (
                ("twistd", "-n", "--logfile", "LOG", "sims-server"),
                ("twistd", "-n", "sims-server", "--logfile", "LOG"),
                ("sims-server", "--logfile", "LOG"),
            )
        ):
            log = self.place.home / f"server-{number}.log"
            server = self.start_server(command=[part.replace("LOG", str(log)) for part in command])
            self._use(server.port)
            server.stop()
            self.assertIn("client 1 connected from 127.0.0.1", log.read_text("utf-8"))
            self.assertEqual((len(server.out), server.err), (1, []), server.describe(f"{command}"))
            self._check_empty(self.place.cwd)

    def test_no_secrets(self) -> None:
        """Nothing that a peer wrote, in the clear or sealed, is in the log."""
        server = self.start_server()
        first = self.start_peer(server.port, "Sesame-name", 1)
        second = self.start_peer(server.port, "Sesame-name-too", 2)
        opened = self.meanwhile(next_event, second, "opened")
        first.open(2)
        opened.result()
        say(first, second, "Sesame-text")
        first.send_inner({"type": "Sesame-inner", "src": 1, "dst": 2})
        next_event(first, "error")
        first.send_inner({"type": "client-disconnect", "src": "Sesame-inner", "dst": 2, "data": {"x": "Sesame-inner"}})
        next_event(first, "error")
        first.send_frame({"type": "Sesame-frame", "Sesame-frame": "Sesame-frame"})
        for frame in (
            b"Sesame-frame\n\n",
            b'{"type": "Sesame-frame"}\n\n',
            b'{"type": "connect", "phase": 1, "name": "Sesame-name", "id": "Sesame-frame", "ciphers": []}\n\n',
            b'{"type": "connect", "phase": 1, "name": "Sesame-name", "id": 7, "ciphers": ["Sesame-cipher"]}\n\n',
            json.dumps({"type": "connect", "phase": 1, "name": "Sesame-name" * 99, "id": 7, "ciphers": []}).encode()
            + b"\n\n",
            b"Sesame-frame" * 1000,
        ):
            with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
                sock.sendall(frame)
                while sock.recv(65536):
                    pass
        server.stop()
        said = "\n".join(server.err + server.out)
        self.assertGreater(said.count("closed 127.0.0.1"), 5, said)
        for secret in SECRETS:
            self.assertNotIn(secret, said)
        self.assertIsNone(re.search("BEGIN|[A-Za-z0-9+/]{40}", said), "key material, or something like it")
        server.check_log()

    def _use(self, port: int) -> None:
        peer = self.start_peer(port, "ann", 1)
        self.assertEqual([entry["id"] for entry in peer.roster], [1])

    def _check_empty(self, folder: Path) -> None:
        self.assertEqual([path.name for path in folder.iterdir()], [])


class FolderTests(ProcessTestCase):
    """``--dir``."""

    def test_default(self) -> None:
        """In the user's data folder, for its owner alone."""
        self.start_server().stop()
        self.assertEqual(_mode(self.place.data / "sims" / "server"), 0o700)

    def test_named(self) -> None:
        """A folder that is named is made, for its owner alone; nothing is made elsewhere."""
        folder = self.place.home / "here" / "it is"
        self.start_server("--dir", str(folder)).stop()
        self.assertEqual(_mode(folder), 0o700)
        self.assertFalse(self.place.data.exists())

    def test_unusable(self) -> None:
        """A folder that cannot be made is named, and nothing listens."""
        file = self.place.home / "file"
        file.write_text("x")
        server = self.keep(Server(self.place, "--dir", str(file / "x"), "--seed-listen", LOOPBACK))
        self.assertNotEqual(server.wait_exit(), 0)
        said = "\n".join(server.out + server.err)
        self.assertIn(f"cannot use the folder {file / 'x'}", said)
        self.assertNotIn("Traceback", said)


class EndTests(ProcessTestCase):
    """How it ends, and starts again."""

    def test_signals(self) -> None:
        """SIGTERM and SIGINT end it cleanly within two seconds, with clients connected; each is closed in order."""
        for command in (TWISTD, ("sims-server",)):
            for number in (signal.SIGTERM, signal.SIGINT):
                server = self.start_server(command=command)
                peers = [self.start_peer(server.port, f"peer{n}", n) for n in range(1, 4)]
                greeting = SeedPeer("127.0.0.1", server.port, "greeting", 9, timeout=TIMEOUT)
                greeting.dial()
                self.addCleanup(greeting.close)
                head = {"type": "connect", "phase": 1, "name": "greeting", "id": 9}
                greeting.send_frame({**head, "ciphers": greeting.specs, "data": {}})
                greeting._phase(2, greeting.specs)  # in the middle of a handshake
                began = time.monotonic()
                status = server.stop(number)
                took = time.monotonic() - began
                self.assertLess(took, 2, server.describe("it took too long to end"))
                # twistd ends itself by the same signal, after its services have stopped.
                self.assertIn(status, (0, -number), server.describe("not a clean end"))
                server.check_log()
                for peer in peers:
                    with self.assertRaises(EOFError):
                        peer.recv_inner()
                with self.assertRaises(EOFError):
                    greeting.recv_frame()

    def test_again(self) -> None:
        """A second start on the same port works right after the first has ended, with clients still connected."""
        port = self.start_server_and_leave()
        again = self.start_server("--seed-listen", f"tcp:{port}:interface=127.0.0.1")
        self.assertEqual(again.addresses, [("127.0.0.1", port)])
        self.start_peer(port, "ann", 1)

    def test_again_after_kill(self) -> None:
        """So it does after a SIGKILL."""
        port = self.start_server_and_leave(signal.SIGKILL)
        self.start_server("--seed-listen", f"tcp:{port}:interface=127.0.0.1")
        self.start_peer(port, "ann", 1)

    def start_server_and_leave(self, number: int = signal.SIGTERM) -> int:
        """A server that has ended while clients were connected, which still are; gives its port."""
        server = self.start_server()
        port = server.port
        peers: list[SeedPeer] = [self.start_peer(port, f"peer{n}", n) for n in (1, 2)]
        server.stop(number)
        for peer in peers:
            with self.assertRaises((EOFError, OSError)):
                peer.recv_inner()
        return port

    def test_two_places(self) -> None:
        """Two servers of one user, on different ports, know nothing of each other."""
        one = self.start_server()
        other = self.start_server()
        self.start_peer(one.port, "ann", 1)
        peer = self.start_peer(other.port, "bob", 1)
        self.assertEqual([entry["name"] for entry in peer.roster], ["bob"])

    def test_place(self) -> None:
        """It starts where there is no home yet."""
        place = Place.make(str(self.place.home / "new"))
        place.home.rmdir()
        server = self.keep(Server(place, "--seed-listen", LOOPBACK)).wait_ready()
        self.start_peer(server.port, "ann", 1)
        self.assertEqual(_mode(place.data / "sims" / "server"), 0o700)
