"""The relay: who is here, where it goes, what is owed."""
