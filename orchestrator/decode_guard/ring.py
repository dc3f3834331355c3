"""Pictures in memory that two processes share: written by a worker, read here without a copy."""

import fcntl
import mmap
import os
import weakref

import numpy as np

from orchestrator.types.pictures import Pixels

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class PictureRing:
    """Slots for pictures in anonymous shared memory.

    Memory is only taken where a picture was once written, so that slots for the largest picture
    cost what the stream's own pictures need. A slot is free again when nobody refers to its picture
    any more; the memory is when that is so for all and the ring is closed.

    Args:
        slots: Number of pictures.
        slot_bytes: Largest picture in bytes.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self.descriptor = os.memfd_create("touchline-pictures", flags)
        self._close_descriptor = weakref.finalize(self, os.close, self.descriptor)
        os.ftruncate(self.descriptor, slots * self.slot_bytes)
        # A worker holds the memory, too: if it could shrink it, a look at it would be SIGBUS here.
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._memory: mmap.mmap | None = mmap.mmap(
            self.descriptor, slots * self.slot_bytes, prot=mmap.PROT_READ
        )
        self._free = list(range(slots))

    @property
    def free_slot(self) -> int:
        """A slot to write the next picture into; the one used last, since its memory is there."""
        return self._free[-1]

    def take(self, slot: int, height: int, width: int) -> Pixels:
        """Return the picture that was written into `free_slot`, read-only.

        It is a view as long as that leaves a slot free, and else a copy.

        Raises:
            ValueError: The picture is empty or larger than a slot, or the ring is closed.
        """
        if self._memory is None:
            raise ValueError("the ring is closed")
        size = height * width * 3
        if not 0 < size <= self.slot_bytes:
            raise ValueError(f"expected a picture of 1 to {self.slot_bytes} bytes, got {size}")
        # All views that numpy makes refer to this array, whatever they are views of.
        picture = np.frombuffer(self._memory, np.uint8, size, slot * self.slot_bytes)
        if len(self._free) == 1:
            return picture.reshape(height, width, 3).copy()
        self._free.remove(slot)
        weakref.finalize(picture, self._free.append, slot).atexit = False
        return picture.reshape(height, width, 3)

    @property
    def is_closed(self) -> bool:
        """Whether the memory was let go of."""
        return self._memory is None

    def close(self) -> None:
        """Let go of the memory; no picture can be taken afterwards."""
        self._close_descriptor()
        self._memory = None
