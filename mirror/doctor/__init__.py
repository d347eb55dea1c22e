"""Checks a mirror and its environment, and reports problems and how to fix them. Changes nothing."""
