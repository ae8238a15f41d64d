"""What may be tried: data only."""
