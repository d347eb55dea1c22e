"""Compares the official client's files with the server, and sends it what it lost of runs that have ended."""
