"""The door to Triton: the only folder that imports tritonclient."""
