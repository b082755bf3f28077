"""The user's end: sessions, conversations, reconnecting."""
