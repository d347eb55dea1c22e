"""Where the mirror lives, its config file and its credentials."""
