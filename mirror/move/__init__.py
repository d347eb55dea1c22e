"""Writes runs of the mirror for other servers: offline run folders of the official client, and MLflow."""
