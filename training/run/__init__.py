"""What every fine-tuning run shares: configuration, checkpoints, logs and interruption."""
