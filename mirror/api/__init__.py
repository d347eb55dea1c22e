"""The Python API over the mirror, shaped as the official client's; see docs/python.md."""
