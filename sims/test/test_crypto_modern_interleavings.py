"""Every course of a talk of two people over links that keep what they carry in order.

What holds in each of them is in :mod:`sims.test.modern_interleavings`; over links that keep no order,
``tests/test_modern_interleavings.py``.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sims.test.modern_interleavings import Courses


class Ordered(SynchronousTestCase):
    def test_five_texts(self) -> None:
        """Whoever says them, and when, both opening at once among it; ``tests/`` has seven."""
        courses = Courses(5, ordered=True)
        courses.explore()
        # So many there are; and that both talk across each other is among them, or it would not show much.
        self.assertGreaterEqual(courses.states, 5_000)
        self.assertGreaterEqual(courses.rests, 700)
        self.assertGreater(courses.apart, 150)

    def test_three_texts_and_phases_that_are_answered_later(self) -> None:
        """As by one who went down before answering, or who has something to say with it."""
        courses = Courses(3, ordered=True, at_once=False)
        courses.explore()
        self.assertGreaterEqual(courses.states, 1_600)
        self.assertGreaterEqual(courses.rests, 200)
