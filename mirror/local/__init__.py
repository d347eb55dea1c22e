"""Reads the `.wandb` files that the official client writes, and keeps their runs beside those from the server."""
