"""What one client may cost the relay."""

from __future__ import annotations

#: Seconds for a whole handshake, and for a client that has stopped taking what it is sent.
HANDSHAKE_TIMEOUT = 10.0
STALL_TIMEOUT = 60.0

#: What waits for a client that has not used the last 64 keys: beyond the first pair of numbers whoever sends to it
#: waits, beyond the second it is closed (messages, bytes). Acknowledgements do not wait, and so can come to the second.
SOFT_PENDING = (64, 256 * 1024)
HARD_PENDING = (4096, 4 * 1024 * 1024)

#: A client that sends so many frames without being sent any is sent a list reply, so that keys move on.
TURN_AFTER = 64
