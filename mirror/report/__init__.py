"""Renders reports of the W&B app from the mirror: their text, their run sets and their charts."""
