"""The weights registry: published checkpoints and our own demo weights."""
