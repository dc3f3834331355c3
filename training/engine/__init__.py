"""TensorRT engines: built, gated on accuracy, and stored with their provenance."""
