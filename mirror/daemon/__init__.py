"""Syncs on schedule, and serves the control socket."""
