"""Downloads the content of files beside the passes, each content once."""
