"""Bytes in, values out: no reactor, clock, file or random source that was not handed in."""
