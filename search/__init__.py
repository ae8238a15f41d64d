"""Which trial next, and where it runs."""
