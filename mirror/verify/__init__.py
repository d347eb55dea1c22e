"""Proves that the published file equals the server, or reports where it does not."""
