"""What one client may cost the relay."""

from __future__ import annotations

#: Seconds for a whole handshake, and for a client that has stopped taking what it is sent.
HANDSHAKE_TIMEOUT = 10.0
STALL_TIMEOUT = 60.0

#: What waits for a client whose side has used none of the last 64 keys: senders wait beyond the first pair of
#: numbers, and wait without exception beyond the second (messages, bytes).
SOFT_PENDING = (64, 256 * 1024)
HARD_PENDING = (4096, 4 * 1024 * 1024)

#: A client that sends so many frames without being sent any is sent a list reply, so that keys move on.
TURN_AFTER = 64
