"""How one trial runs: data, models, losses, schedules, the training loop."""
