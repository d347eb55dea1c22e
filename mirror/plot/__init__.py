"""Draws the history of runs: curves of single runs, or means of groups with confidence bands."""
