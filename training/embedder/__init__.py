"""SigLIP: fine-tuning and scores of the kit embedder and its text tower."""
