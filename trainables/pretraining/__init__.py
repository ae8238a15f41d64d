"""Self-supervised pretraining: from images without labels to a file of weights for a backbone."""
