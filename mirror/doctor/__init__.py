"""Finds out what is wrong with a mirror and its surroundings, and says what to do about it. Changes nothing."""
