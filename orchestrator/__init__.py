"""Touchline's orchestrator: composes four Triton models into players, frame by frame."""
