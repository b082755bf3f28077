"""Independent ends of the seed protocol, for tests that talk over real sockets."""
