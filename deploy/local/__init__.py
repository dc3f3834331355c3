"""The whole cluster on one machine: the real tritonserver, started and stopped with the caller."""
