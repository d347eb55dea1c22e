"""The daemon's local HTTP port: one page over the published file, and a guarded place for other applications."""
