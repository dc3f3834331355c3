"""What a stream knows of one object between two frames."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from sam2_streaming.effort import Candidate
from sam2_streaming.masks import FrameMask
from sam2_streaming.memory import ObjectMemory
from sam2_streaming.windows import Follower

SCORE_DECAY = 0.95
"""What is left of a score after each frame that nobody looked at its object."""


@dataclass(frozen=True, slots=True, eq=False)
class Tracked:
    """One object.

    Attributes:
        memory: As of the last frame that the network looked at and remembered.
        follower: Where the object is.
        mask: As the network last saw it, which may be some frames ago.
        score: Of that mask, less what it has lost since.
        age: Frames since the last prompt.
        surprise: Way from where the object was expected to where it was last found, in heights.
        look: See `looks.settled`, `(3,)`.
    """

    memory: ObjectMemory
    follower: Follower
    mask: FrameMask
    score: float
    age: int
    surprise: float
    look: Tensor

    @classmethod
    def found(
        cls,
        before: Follower,
        memory: ObjectMemory,
        mask: FrameMask,
        score: float,
        age: int,
        look: Tensor,
    ) -> "Tracked":
        """The object after a frame in which the network looked for it.

        Args:
            before: Where it was expected.
            memory: Of this frame.
            mask: Empty if it is out of sight.
            score: In `[0, 1]`; 0 is kept if the mask is empty.
            age: Frames since the last prompt.
            look: As of this frame.
        """
        follower = before.after(None if mask.is_empty else mask.box)
        way = float(np.linalg.norm(follower.centre - before.expected))
        kept_score = 0.0 if mask.is_empty else score
        return cls(memory, follower, mask, kept_score, age, way / before.height, look)

    @property
    def nbytes(self) -> int:
        """Size of memory and mask in bytes."""
        return self.memory.nbytes + self.mask.nbytes

    def coasted(self) -> "Tracked":
        """One frame later, with nobody having looked."""
        score = SCORE_DECAY * self.score
        return replace(self, follower=self.follower.coasted(), score=score, age=self.age + 1)

    def shown(self, frame_shape: tuple[int, int]) -> FrameMask:
        """The mask where the object is now, by whole pixels."""
        if self.mask.is_empty or not self.follower.unseen:
            return self.mask
        box = self.mask.box
        dx, dy = np.rint(self.follower.centre - (box[:2] + box[2:]) / 2)
        return self.mask.moved(int(dx), int(dy), frame_shape)

    def candidate(self, object_id: int) -> Candidate:
        """What decides whether the object is looked at in the next frame."""
        box = self.mask.box
        shift = self.follower.expected - (box[:2] + box[2:]) / 2
        return Candidate(
            object_id,
            (box + np.tile(shift, 2)).astype(np.float32),
            waited=self.follower.unseen + 1,
            age=self.age,
            score=self.score,
            surprise=self.surprise,
        )
