"""What ``trial sims`` tries on a few courses that chance decides, or on a part of many alike, on many more."""

from __future__ import annotations

from sims.test import (
    test_client_machine,
    test_client_seed_texts,
    test_client_vault_history,
    test_client_vault_pending,
    test_console_view,
    test_crypto_modern_machines,
    test_crypto_modern_parties,
    test_server_delivery,
    test_server_delivery_short,
    test_server_modern_random,
    test_server_relay,
)


class People(test_client_machine.MachineTests):
    examples = 40


class TwoPeople(test_crypto_modern_machines.Machines):
    examples = 60


class ThreePeople(test_crypto_modern_parties.Machines):
    examples = 60


class SoakTests(test_server_relay.SoakTests):
    runs, texts = 6, 12


class DeliveryTests(test_server_delivery.RandomTests):
    seeds = 600


class ShortDeliveryTests(test_server_delivery_short.RandomTests):
    seeds = 1600


class RelayTests(test_server_modern_random.RandomTests):
    seeds = 600


class IndexTests(test_client_vault_history.VaultTests):
    seeds = 12


class PendingTests(test_client_vault_pending.SameTests):
    seeds = 20


class OneWayTests(test_client_seed_texts.TextTests):
    many = 1000


class CleaningTests(test_console_view.Cleaning):
    every = 1
