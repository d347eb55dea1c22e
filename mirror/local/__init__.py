"""Reads the `.wandb` files that the official client writes, and mirrors their runs beside those from the server."""
