"""Decides what to pull; the only room that uses both the server and the store."""
