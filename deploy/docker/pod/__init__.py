"""Scripts that run inside a model's pod, with nothing but the Python of the Triton image."""
