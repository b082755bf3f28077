"""Frames of sims/2 over TCP and over TLS 1.3 on blocking sockets, made from the protocol page alone.

TLS is run in memory beside the socket, so that one thread may send while another waits for what comes.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import threading
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from tests.peers.modern_connect import EXPORTER, base64_field, from_frame, to_frame
from tests.peers.modern_hop import Hop
from tests.peers.modern_primitives import Map, RefusedError, as_map

TERMINATOR = b"\n\n"
MAX_FRAME = 96 * 1024


class Stream:
    """Bytes over plain TCP. `binding` is the exporter's value, empty here."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.binding = sock, b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sending = threading.Lock()

    def send(self, data: bytes) -> None:
        with self._sending:
            self.sock.sendall(data)

    def receive(self) -> bytes:
        """Some bytes; none when the other end has closed."""
        return self.sock.recv(65_536)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class TlsStream(Stream):
    """Bytes over TLS 1.3."""

    def __init__(self, sock: socket.socket, context: SSL.Context, client: bool) -> None:
        super().__init__(sock)
        self._lock = threading.RLock()
        self._tls = SSL.Connection(context, None)
        (self._tls.set_connect_state if client else self._tls.set_accept_state)()
        while True:
            try:
                self._tls.do_handshake()
                break
            except SSL.WantReadError:
                self._flush()
                if not self._feed():
                    raise EOFError("closed in the TLS handshake") from None
            except SSL.Error as error:
                raise OSError(f"TLS: {error}") from None
        self._flush()
        self.binding = self._tls.export_keying_material(EXPORTER, 32)

    def send(self, data: bytes) -> None:
        with self._lock:
            self._tls.sendall(data)
            self._flush()

    def receive(self) -> bytes:
        while True:
            with self._lock:
                try:
                    return self._tls.recv(65_536)
                except SSL.WantReadError:
                    self._flush()
                except SSL.Error:
                    return b""
            if not self._feed():
                return b""

    def _flush(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self.sock.sendall(self._tls.bio_read(65_536))

    def _feed(self) -> bool:
        data = self.sock.recv(65_536)
        if data:
            with self._lock:
                self._tls.bio_write(data)
        return bool(data)


def client_context() -> SSL.Context:
    """TLS 1.3 only, whatever the certificate: connect proves who it is."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    return context


def server_context() -> SSL.Context:
    """TLS 1.3 only, with a new certificate."""
    context, key = client_context(), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sims")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=2))
    context.use_privatekey(key)
    context.use_certificate(builder.sign(key, hashes.SHA256()))
    return context


class Wire:
    """Frames, and once there is a `hop`, sealed messages, with the rekeys answered. One thread at a time reads."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.hop = stream, None
        self.lock = threading.RLock()
        self._buffer = b""
        self.rekey_after = 1_000

    hop: Hop | None

    def send_frame(self, raw: bytes) -> None:
        self.stream.send(raw + TERMINATOR)

    def read_frame(self, timeout: float | None = None) -> bytes:
        """The next frame without its terminator; TimeoutError, or EOFError when it is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := self._buffer.find(TERMINATOR)) < 0:
            if len(self._buffer) > MAX_FRAME:
                raise RefusedError("too-large", "a frame")
            left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
            self.stream.sock.settimeout(left)
            data = self.stream.receive()
            if not data:
                raise EOFError("closed by the other end")
            self._buffer += data
        self.stream.sock.settimeout(None)
        frame, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return frame

    def send(self, inner: Map) -> None:
        """Seal and send."""
        with self.lock:
            hop = self._hop()
            self.send_frame(to_frame(hop.seal(inner)))
            if inner["type"] == "rekey":
                hop.sent_rekey(inner)
            elif hop.role == "client" and hop.handled >= self.rekey_after and not hop.rekeying:
                self.rekey()

    def rekey(self) -> None:
        """Start a rekey."""
        with self.lock:
            self.send(self._hop().start_rekey())

    def read(self) -> Map:
        """The next inner message that is no rekey."""
        while True:
            frame = from_frame(self.read_frame())
            if frame.get("type") == "error":
                raise RefusedError(str(as_map(frame.get("data")).get("code")), "told in the clear")
            if frame.get("type") != "secure":
                raise RefusedError("malformed", "a secure frame expected")
            with self.lock:
                box = base64_field(frame.get("payload"), "ciphertext")
                inner = self._hop().open(as_map(frame.get("sa-data")).get("n"), box)
                if inner.get("type") != "rekey":
                    return inner
                answer = self._hop().take_rekey(inner)
                if answer is not None:
                    self.send(answer)

    def _hop(self) -> Hop:
        if self.hop is None:
            raise RefusedError("not-authenticated", "before connect")
        return self.hop

    def close(self) -> None:
        self.stream.close()


def dial(address: tuple[str, int], tls: bool, timeout: float) -> Wire:
    """A connection to a server."""
    sock: Any = socket.create_connection(address, timeout)
    return Wire(TlsStream(sock, client_context(), True) if tls else Stream(sock))
