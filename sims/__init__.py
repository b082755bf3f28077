"""SIMS: secure instant messaging. What a program that embeds SIMS imports is here, and nothing else."""

from sims.client.connection import SeedClient
from sims.client.events import (
    Connected,
    Contact,
    Delivery,
    Disconnected,
    Event,
    IdentityChanged,
    Link,
    Listing,
    Message,
    Offline,
    Problem,
    Ready,
    SafetyNumber,
    State,
    Trusted,
    Unreadable,
)
from sims.client.modern_connection import Client
from sims.client.store import MemoryStore, Store
from sims.client.vault import Vault
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError
from sims.version import __version__

__all__ = [
    "Client",
    "Code",
    "Connected",
    "Contact",
    "Delivery",
    "Disconnected",
    "Event",
    "IdentityChanged",
    "Link",
    "Listing",
    "LocalError",
    "MemoryStore",
    "Message",
    "Offline",
    "PeerError",
    "Problem",
    "Ready",
    "SafetyNumber",
    "SeedClient",
    "SimsError",
    "State",
    "Store",
    "Trusted",
    "UnavailableError",
    "Unreadable",
    "Vault",
    "__version__",
]
