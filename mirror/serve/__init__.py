"""A W&B-shaped endpoint over the mirror, for scripts written for the official SDK; see docs/sdk.md."""
