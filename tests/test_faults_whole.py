"""What ``trial sims`` tries at one place of three, at all of them: whatever breaks, nothing is lost."""

from __future__ import annotations

from sims.test import test_client_faults, test_client_history, test_client_shown, test_crypto_modern_faults


class BreakingTests(test_client_faults.BreakingTests):
    every = 1


class KeptTests(test_client_history.KeptTests):
    every = 1


class CommitTests(test_client_shown.CommitTests):
    every = 1


class OneFault(test_crypto_modern_faults.OneFault):
    every = 1
