"""Decoding in guarded workers, all forked from one nursery."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from orchestrator.decode_guard.nursery import Nursery
from orchestrator.decode_guard.source import GuardedSource
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import Encoding

_MEMORY_BYTES = 96 << 20


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as made:
        yield made


@pytest.fixture
def guarded(nursery: Nursery) -> Iterator[Callable[..., GuardedSource]]:
    """Open guarded sources that are closed after the test."""
    sources: list[GuardedSource] = []

    def open_(
        encoding: Encoding = Encoding.PNG, *, max_pixels: int = 512 * 512, **limits: object
    ) -> GuardedSource:
        settings = DecodeSettings(**{"memory_bytes": _MEMORY_BYTES, **limits})
        sources.append(
            GuardedSource(encoding, max_pixels=max_pixels, settings=settings, nursery=nursery)
        )
        return sources[-1]

    yield open_
    for source in sources:
        source.close()
