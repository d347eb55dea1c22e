"""Reads the published file: SQL, run filters, history, exports, and the layouts of results."""
