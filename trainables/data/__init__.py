"""Data sets: loaders, the decoded cache, and the embedded procedural faces."""
