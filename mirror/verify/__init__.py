"""Proves that the published file equals the server, or tells where it does not."""
