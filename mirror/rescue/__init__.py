"""Holds the official client's files against the server, and sends it what it lost of a run that has ended."""
