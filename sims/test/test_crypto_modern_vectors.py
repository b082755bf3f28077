"""The vectors of the modern protocol hold, and their runner notices when one does not."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import vectors
from sims.crypto.identity import PublicIdentity

MODERN_A = Path(__file__).parent / "vectors" / "modern-a.json"
REFUSED = "connect 0, refused 0, the frame at which it is refused, and the code"
IMPOSTOR = "connect 0, refused 23, the frame at which it is refused, and the code"


class Runner(SynchronousTestCase):
    def setUp(self) -> None:
        self.document: dict[str, Any] = json.loads(MODERN_A.read_bytes())

    def test_every_value_holds_and_every_refusal_is_one(self) -> None:
        report = vectors.check(self.document)
        self.assertEqual(report.differences, [])
        self.assertGreater(report.compared, 1500)

    def test_the_command_says_so(self) -> None:
        said = io.StringIO()
        self.patch(sys, "stdout", said)
        self.assertEqual(vectors.main([str(MODERN_A)]), 0)
        self.assertTrue(said.getvalue().endswith(" values compared, all hold\n"))

    def test_a_changed_value_is_noticed(self) -> None:
        session = self.document["sessions"][0]
        connect = self.document["connect"][1]
        steps = session["steps"]
        early = (
            ("identities", self.document["identities"]["bob"], "id"),
            ("safety_numbers", self.document["safety_numbers"][0], "number"),
            ("signatures", self.document["signatures"][0], "signature"),
            ("padding", self.document["padding"][0], "sha256"),
            ("connect", connect["values"], "th1"),
            ("connect", connect["values"], "plain3"),
            ("connect", connect["frames"], 1),
            ("connect", connect["secure"][3]["values"], "nonce"),
            ("connect", connect["rekey_values"], "rekey_root"),
            ("sessions", session["bundle"], "signature"),
            ("sessions", session, "one_time_signed"),
            ("sessions", session["create"]["values"], "a_next_header_key"),
            ("sessions", steps[26]["values"], "confirm"),
            ("sessions", steps[26], "order"),
        )
        late = (
            ("sessions", steps[50]["values"], "step_ikm"),
            ("sessions", steps[50]["wire"]["data"], "mac"),
            ("sessions", steps[89]["wire"]["data"], "body"),
        )
        for count, places in ((27, early), (90, late)):
            session["steps"] = steps[:count]
            self.assertEqual(vectors.check(self.only("sessions")).differences, [])
            for part, holder, key in places:
                kept = holder[key]
                holder[key] = kept[:-2] + ("0" if kept[-2] != "0" else "1") + kept[-1]
                self.assertNotEqual(vectors.check(self.only(part)).differences, [], key)
                holder[key] = kept

    def only(self, *kept: str, **changes: object) -> dict[str, Any]:
        """The document, without most of its lists."""
        lists = (key for key, value in self.document.items() if isinstance(value, list) and key not in kept)
        found = {**self.document, **{key: [] for key in lists}, **changes}
        found["connect"] = found["connect"][1:] if "connect" in kept else found["connect"]
        found["sessions"] = found["sessions"][:1] if "sessions" in kept else found["sessions"]
        return found

    def test_what_is_not_refused_is_noticed(self) -> None:
        for path, at in (("negative", 0), ("secure_negative", 3)):
            kept = self.document["connect"][1][path][at]
            value = {
                "mutate": {"path": "type", "set": kept.get("type", "x")},
                "frame": 4,
                "step": 1,
                "expect": "refused",
            }
            self.document["connect"][1][path][at] = value
            self.assertIn("not refused", "".join(vectors.check(self.only("connect")).differences))
            self.document["connect"][1][path][at] = kept
        self.document["bundle_negative"][16]["now"] -= 1
        found = vectors.check(self.only("bundle_negative", sessions=self.document["sessions"])).differences
        self.assertEqual(found, ["refused bundle 16: not refused"])

    def test_any_shape_is_reported(self) -> None:
        value: object
        for key in self.document:
            for value in (None, 1, "x", [1], [{}], {"a": 1}, [{"of": [1, 2]}, {"path": {}}]):
                vectors.check(self.only(**{key: value}))
        for part, long in (("connect", "negative"), ("sessions", "steps")):
            entry = self.document[part][0]
            entry = {**entry, long: entry[long][:3]}  # few, as they are played each time
            self.assertEqual(vectors.check(self.only(**{part: [entry]})).differences, [])
            for key in entry:
                for value in (None, [1], {"a": "00"}):
                    vectors.check(self.only(**{part: [{**entry, key: value}]}))

    def test_a_signature_that_nobody_checks_is_noticed(self) -> None:
        # With one check after the other left out, as only the vectors see it: an impostor is let through too far.
        def nothing(*arguments: object) -> None:
            pass

        self.patch(PublicIdentity, "verify", nothing)
        found = vectors.check(self.only("connect")).differences
        self.assertEqual([line.partition(":")[0] for line in found], [IMPOSTOR])

    def test_a_refusal_that_comes_too_late_is_noticed(self) -> None:
        late = {"frame": 3, "expect": "refused", "mutate": {"path": "data/sealed", "at": 0, "xor": "01"}}
        for changed, expected in ((late, []), ({**late, "frame": 2}, []), ({**late, "sign_with": "bob"}, [REFUSED])):
            self.document["connect"][1]["negative"] = [changed]
            found = vectors.check(self.only("connect")).differences
            self.assertEqual([line.partition(":")[0] for line in found], expected)
