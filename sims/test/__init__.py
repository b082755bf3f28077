"""Fast tests, without sockets: ``trial sims``."""
