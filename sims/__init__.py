"""SIMS: secure instant messaging. What a program that embeds SIMS imports is here, and nothing else."""

from sims.client.connection import SeedClient
from sims.client.events import (
    Connected,
    Contact,
    Delivery,
    Disconnected,
    Event,
    Listing,
    Message,
    Offline,
    Problem,
    Ready,
    State,
)
from sims.errors import Code, LocalError, PeerError, SimsError, UnavailableError
from sims.version import __version__

__all__ = [
    "Code",
    "Connected",
    "Contact",
    "Delivery",
    "Disconnected",
    "Event",
    "Listing",
    "LocalError",
    "Message",
    "Offline",
    "PeerError",
    "Problem",
    "Ready",
    "SeedClient",
    "SimsError",
    "State",
    "UnavailableError",
    "__version__",
]
