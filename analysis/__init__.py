"""What was learned: reads the store, and nothing else."""
