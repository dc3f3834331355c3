"""A model's answer that is not finite is dropped and spoils nothing that is learnt later."""

import numpy as np
import pytest

from orchestrator.errors import TensorContractError
from orchestrator.session import StreamSession
from orchestrator.settings import DetectSettings, IdentifySettings, NumberSettings, Settings
from orchestrator.stages.detect import Detector
from orchestrator.stages.identify import Identifier
from orchestrator.stages.number import NumberReader
from orchestrator.types.frames import Encoding
from orchestrator.types.people import TeamSheet
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import Track, Tracks, TrackState
from tests.unit import scripted_triton
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.tracked_people import LEFT, RIGHT, frame, people, tracker


def seen() -> Tracks:
    boxes = [np.array(box, np.float32) for box in (LEFT, RIGHT)]
    return Tracks(
        tuple(
            Track(object_id, box, 0.9, TrackState.CONFIRMED, "person", None, is_new=True)
            for object_id, box in enumerate(boxes, 1)
        )
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("thresholds", "0.4,high"), ("thresholds", "0.4,nan"), ("tiles", "0"), ("tiles", "1.5")],
)
def test_a_detector_of_unsound_parameters_is_refused_by_their_name(name, text, monkeypatch):
    monkeypatch.setitem(scripted_triton._PARAMETERS["rfdetr_detector"], name, text)
    with pytest.raises(TensorContractError, match=f"'{name}': expected numbers .* got '{text}'"):
        Detector(ScriptedTriton(), DetectSettings())


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
async def test_an_embedding_that_is_not_finite_is_dropped(spoilt):
    rows = [np.array([1, 0, 0, spoilt], np.float32), np.array([0, 1, 0, 0], np.float32)]
    triton = ScriptedTriton(embed=lambda crop: rows.pop(0))
    identifier = Identifier(triton, IdentifySettings(), frame_rate=10)
    embeddings = await identifier.embed(frame(), seen(), 0)
    assert list(embeddings) == [2]


async def test_kits_that_are_not_finite_name_no_side(caplog):
    class Spoilt(ScriptedTriton):
        def _siglip_text(self, inputs, step):
            return {"embedding": np.full((len(inputs["text"]), 4), np.nan, np.float32)}

    config = StreamConfig("spoilt", Encoding.JPEG, team_b=TeamSheet(kit_description="red"))
    session = await StreamSession.open(config, Spoilt(), Settings())
    assert session.state.ledger.awaits_kits
    assert "siglip_text: embedding: expected finite numbers" in caplog.text
    await session.close()


@pytest.mark.parametrize("head", ["number_visible", "tens", "units", "role"])
async def test_a_reading_that_is_not_finite_is_dropped(head):
    class Spoilt(ScriptedTriton):
        def _resnet_jersey(self, inputs, step):
            reply = super()._resnet_jersey(inputs, step)
            reply[head][0, 0] = np.nan
            return reply

    reader = NumberReader(Spoilt(), NumberSettings(), frame_rate=10)
    readings = await reader.read(frame(), seen(), 0)
    assert list(readings) == [2]
    assert readings[2].numbers.argmax() == 7


async def test_a_mask_without_a_score_vouches_for_nobody_and_the_stream_goes_on():
    triton = ScriptedTriton(move=lambda i, age, box: (box, np.nan if i == 1 else 0.9))
    subject = tracker(triton)
    for index in range(4):
        tracks = await subject.track(frame(index), people(LEFT, RIGHT))
        assert [track.object_id for track in tracks.seen] == [1, 2]
    tracks = await subject.track(frame(4), people())
    assert [track.object_id for track in tracks.seen] == [2]


@pytest.mark.parametrize("spoilt", [(np.nan, 10, np.nan, 60), (0, 0, np.inf, np.inf)])
async def test_who_has_a_mask_without_a_place_is_awaited_like_anybody_unseen(spoilt):
    triton = ScriptedTriton(move=lambda i, age, box: (spoilt if i == 1 and age > 3 else box, 0.9))
    subject = tracker(triton)
    for index in range(9):
        found = people() if 5 <= index < 8 else people(LEFT, RIGHT)
        tracks = await subject.track(frame(index), found)
        assert all(np.isfinite(track.xyxy).all() for track in tracks.seen)
    assert [track.object_id for track in tracks.seen] == [1, 2]
