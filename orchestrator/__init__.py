"""Touchline's orchestrator: composes four Triton models into players, frame by frame."""

import os

# Before gRPC is loaded, which asks once: strangers' failed handshakes must not fill the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
