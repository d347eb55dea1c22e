"""The one way to read the published file: open it, find runs by filter, read histories as columns, sample them."""
