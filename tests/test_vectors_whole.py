"""The captured session with every single value changed: what ``trial sims`` does with a part of them."""

from __future__ import annotations

from sims.test import test_vectors as fast


class WholeLeafTests(fast.LeafTests):
    """All of them."""

    every = step = 1
