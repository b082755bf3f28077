"""Every course of a talk of two people over links that keep no order, each message also coming again at any time.

What holds in each of them is in :mod:`sims.test.modern_interleavings`; over links that keep the order,
``sims/test/test_crypto_modern_interleavings.py``. All of it is to take less than a minute of CPU, which is enough for
four texts with all their phases (up to ten messages, as both may open); for six once the phases are through; and for
six from the start by chance. How many different states were met is printed, and has a lower bound.
"""

from __future__ import annotations

from random import Random
from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from sims.test.modern_interleavings import Courses


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.began = process_time()

    def told(self, courses: Courses, least: int) -> None:
        """There were so many states."""
        spent = process_time() - self.began
        found = f"{courses.states} states, {courses.rests} at rest, {courses.apart} of them on two sessions"
        print(f"\n    {self._testMethodName}: {found}; {spent:.0f} s of CPU")
        self.assertGreaterEqual(courses.states, least)
        self.assertGreater(courses.rests, 0)


class Unordered(Case):
    def test_four_texts(self) -> None:
        """All courses, from two people who have nothing yet."""
        courses = Courses(4, ordered=False, doubled=True)
        courses.explore()
        self.told(courses, 63_000)

    def test_three_texts_and_phases_that_are_answered_later(self) -> None:
        """All courses in which an end may be down before it answers, or says something with it."""
        courses = Courses(3, ordered=False, doubled=True, at_once=False)
        courses.explore()
        self.told(courses, 20_000)

    def test_six_texts_on_a_session_that_is_there(self) -> None:
        """All courses after the four phases."""
        courses = Courses(6, ordered=False, doubled=True)
        courses.settle(0)
        courses.explore()
        self.told(courses, 14_000)

    def test_six_texts_when_both_have_opened(self) -> None:
        """All courses after both opened at once and all phases are through: two sessions, the ends on one each."""
        courses = Courses(6, ordered=False, doubled=True)
        courses.settle(0, 1)
        courses.explore()
        self.told(courses, 24_000)

    def test_six_texts(self) -> None:
        """Some courses, from two people who have nothing yet."""
        courses = Courses(6, ordered=False, doubled=True)
        courses.wander(1_000, Random(6))
        self.told(courses, 9_500)


class Ordered(Case):
    def test_seven_texts(self) -> None:
        """All courses: of six texts that are there the fast suite knows what has come; here the talk goes on."""
        courses = Courses(7, ordered=True)
        courses.explore()
        self.told(courses, 54_000)
