"""Draws the history of runs: curves of single runs, or means with confidence bands of groups."""
