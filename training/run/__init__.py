"""What all fine-tuning shares: configs, the resumable loop, and `touchline train`."""
