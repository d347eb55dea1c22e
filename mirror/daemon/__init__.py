"""Syncs on schedule, and answers on the control socket."""
