"""The Python API of the mirror, with the interface of the official client; see docs/python.md."""
