"""Rendered match clips with exact truth, by folder and name: what training's demo weights use."""

from training.data.clips import Clip, Person, Sighting
from training.data.readers.rendered import BALL_ID, read_clip

__all__ = ["BALL_ID", "Clip", "Person", "Sighting", "read_clip"]
