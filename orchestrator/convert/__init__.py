"""Protobuf to domain and back; the only folder that knows both, and nothing else."""
