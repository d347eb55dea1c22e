"""The home folder, the config file and the credentials."""
