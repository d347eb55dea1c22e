"""Decides what to pull; the only room that knows both the server and the store."""
