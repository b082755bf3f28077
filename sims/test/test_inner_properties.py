"""Properties of :mod:`sims.frames` and :mod:`sims.inner`: any bytes are a message, or refused with a code."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims import frames, inner
from sims.errors import Code, PeerError
from sims.frames import Box, ClearError, Connect1, Connect2, Connect3, Connect4
from sims.test.builders import NO_HYPOTHESIS
from sims.test.test_frames import CONNECT1, CONNECT2, SECURE, encoded
from sims.test.test_inner import FROM_CLIENT, FROM_SERVER, packed

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError:

    class Properties(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_properties(self) -> None:
            """Not without hypothesis."""

else:
    CHEAP = settings(max_examples=80, deadline=None, database=None, derandomize=True)

    def spoilt(data: st.DataObject, whole: bytes) -> bytes:
        """With some bytes changed, left out or put in."""
        found = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(found) - 1))
            found[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        return bytes(found) or b" "

    class Properties(SynchronousTestCase):  # type: ignore[no-redef]
        """Total, both of them."""

        def frame(self, data: bytes) -> None:
            try:
                found = frames.decode(data)
            except PeerError as error:
                self.assertIn(error.code, (Code.MALFORMED, Code.TOO_LARGE))
                return
            self.assertIsInstance(found, Connect1 | Connect2 | Connect3 | Connect4 | ClearError | Box)

        def message(self, data: bytes) -> None:
            for read in (inner.from_client, inner.from_server):
                try:
                    found = read(data)
                except PeerError as error:
                    self.assertEqual(error.code, Code.MALFORMED)
                else:
                    self.assertEqual(read(inner.encode(found)), found)

        @CHEAP
        @given(st.binary(max_size=100))
        def test_any_bytes(self, data: bytes) -> None:
            self.frame(data)
            self.message(data)

        @CHEAP
        @given(st.data())
        def test_what_is_nearly_a_frame(self, data: st.DataObject) -> None:
            self.frame(spoilt(data, encoded(data.draw(st.sampled_from((CONNECT1, CONNECT2, SECURE))))))

        @CHEAP
        @given(st.data())
        def test_what_is_nearly_a_message(self, data: st.DataObject) -> None:
            self.message(spoilt(data, packed(data.draw(st.sampled_from(FROM_CLIENT + FROM_SERVER)))))

        @CHEAP
        @given(n=st.integers(0, 2**64 - 1), ciphertext=st.binary(max_size=200))
        def test_boxes_come_back(self, n: int, ciphertext: bytes) -> None:
            self.assertEqual(frames.decode(frames.encode_box(n, ciphertext)), Box(n, ciphertext))

        @CHEAP
        @given(n=st.integers(0, 99), text=st.text(alphabet='AQgwY+/=\\"u0 \n', max_size=9), cut=st.integers(0, 3))
        def test_boxes_are_read_alike(self, n: int, text: str, cut: int) -> None:
            """In whatever base64, spelled in whatever JSON: as they are read where everything is looked at."""
            quick = frames.encode_box(n, b"").replace(b'""', b'"' + b"YWJj"[cut:] + text.encode("ascii") + b'"')
            try:
                closely: object = frames.decode(b" " + quick)
            except PeerError:
                closely = PeerError
            try:
                found: object = frames.decode(quick)
            except PeerError:
                found = PeerError
            self.assertEqual(found, closely)
