"""The whole system from outside: real processes, sockets, hostile peers."""
