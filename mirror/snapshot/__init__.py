"""The one way to read the published file: opening, runs by filter, histories as columns, samples."""
