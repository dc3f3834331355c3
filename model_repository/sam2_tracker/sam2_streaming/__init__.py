"""Streaming SAM2: many objects of many live streams through one network, a frame at a time."""
