from collections import OrderedDict

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2_video_predictor
from sam2_streaming import architecture
from sam2_streaming.engine import StreamingEngine, Target
from sam2_streaming.memory import MemoryLimits
from sam2_streaming.prompts import Prompt

SIZE = 128
FRAMES = 18


def box(*xyxy):
    return Prompt.box(np.array(xyxy, np.float32))


def clicks(*points):
    """Rows of x, y and 1 (on the object) or 0 (beside it)."""
    rows = np.array(points, np.float32)
    return rows[:, :2], rows[:, 2].astype(np.int32)


def disc(x, y, radius):
    ys, xs = np.mgrid[:SIZE, :SIZE]
    return Prompt.of_mask((xs - x) ** 2 + (ys - y) ** 2 < radius**2)


# Two streams of different ages. Objects join while others are tracked, and are corrected later.
PROMPTS = (
    {
        0: {1: box(10, 15, 40, 60), 2: disc(70, 60, 20)},
        3: {3: box(50, 20, 75, 70).with_clicks(*clicks((60, 40, 1), (90, 90, 0)))},
        4: {4: Prompt(*clicks((15, 20, 1))), 1: Prompt(*clicks((30, 30, 1)))},
        9: {2: box(55, 45, 90, 80), 3: disc(60, 45, 15)},
        10: {1: Prompt(*clicks((20, 40, 1), (50, 50, 0)))},
        13: {1: box(12, 15, 44, 62), 4: disc(16, 22, 12)},
    },
    {
        0: {7: box(30, 30, 60, 100)},
        9: {8: disc(25, 70, 18), 7: box(32, 30, 64, 98).with_clicks(*clicks((50, 60, 1)))},
        12: {8: Prompt(*clicks((25, 70, 1), (60, 70, 0), (20, 60, 1)))},
    },
)


def keep(logits):
    return logits


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    network = build_sam2_video_predictor(
        architecture.OFFICIAL_CONFIGS["sam2.1_hiera_tiny"],
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={SIZE}"],
    )
    # A random network says "absent", which replaces every mask by a constant.
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(5.0)
    network.fill_hole_area = 0  # needs a CUDA extension
    return network


@pytest.fixture(scope="module")
def videos():
    shape = (FRAMES, SIZE, SIZE, 3)
    return [np.random.default_rng(k).integers(0, 256, shape, np.uint8) for k in range(2)]


def normalised(video):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(video) / 255 - mean) / std).permute(0, 3, 1, 2)


def official_state(video):
    """What `init_state` returns, without reading a video file."""
    cpu = torch.device("cpu")
    return {
        "images": normalised(video), "num_frames": len(video), "offload_video_to_cpu": False,
        "offload_state_to_cpu": False, "video_height": SIZE, "video_width": SIZE, "device": cpu,
        "storage_device": cpu, "point_inputs_per_obj": {}, "mask_inputs_per_obj": {},
        "cached_features": {}, "constants": {}, "obj_id_to_idx": OrderedDict(),
        "obj_idx_to_id": OrderedDict(), "obj_ids": [], "output_dict_per_obj": {},
        "temp_output_dict_per_obj": {}, "frames_tracked_per_obj": {},
    }  # fmt: skip


def show(predictor, state, frame, object_id, prompt):
    """Prompt the official predictor; returns its mask logits of the object on that frame."""
    if prompt.mask is not None:
        _, ids, logits = predictor.add_new_mask(state, frame, object_id, prompt.mask)
        return logits[ids.index(object_id), 0]
    corners = np.isin(prompt.labels, (2, 3))
    _, ids, logits = predictor.add_new_points_or_box(
        state, frame, object_id,
        points=prompt.points[~corners], labels=prompt.labels[~corners],
        box=prompt.points[corners] if corners.any() else None,
    )  # fmt: skip
    return logits[ids.index(object_id), 0]


def official_masks(predictor, video, prompts):
    """Masks by frame and object, and those of corrected objects before they were corrected."""
    state, masks, uncorrected = official_state(video), [], {}
    for frame in range(len(video)):
        shown, tracked = prompts.get(frame, {}), set(state["obj_ids"])
        for object_id in shown.keys() - tracked:
            show(predictor, state, frame, object_id, shown[object_id])
        ((_, ids, logits),) = predictor.propagate_in_video(state, frame, 0)
        masks.append(dict(zip(ids, logits[:, 0], strict=True)))
        for object_id in shown.keys() & tracked:
            uncorrected[frame, object_id] = masks[frame][object_id]
            masks[frame][object_id] = show(predictor, state, frame, object_id, shown[object_id])
    return masks, uncorrected, state


def streamed_masks(engine, videos, all_prompts):
    masks, memories = [[] for _ in videos], [{} for _ in videos]
    for frame in range(FRAMES):
        keys, targets = [], []
        for stream, prompts in enumerate(all_prompts):
            shown = prompts.get(frame, {})
            for object_id in {**memories[stream], **shown}:
                keys.append((stream, object_id))
                memory = memories[stream].get(object_id)
                targets.append(Target(stream, memory, shown.get(object_id)))
        images = np.stack([video[frame] for video in videos])
        estimates = engine.step(images, targets, keep)
        for stream in range(len(videos)):
            masks[stream].append({})
        for k, (stream, object_id) in enumerate(keys):
            masks[stream][frame][object_id] = estimates.logits[k]
            memories[stream][object_id] = estimates.memories[k]
    return masks, memories


@pytest.fixture(scope="module")
def streamed(predictor, videos):
    engine = StreamingEngine(predictor, "cpu", torch.float32)
    return streamed_masks(engine, videos, PROMPTS)


@pytest.fixture(scope="module")
def official(predictor, videos):
    return [
        official_masks(predictor, video, prompts)
        for video, prompts in zip(videos, PROMPTS, strict=True)
    ]


@pytest.mark.parametrize("stream", [0, 1])
def test_batched_streams_equal_the_official_predictor(official, streamed, stream):
    expected, _, _ = official[stream]
    assert len(expected) == FRAMES
    for ours, theirs in zip(streamed[0][stream], expected, strict=True):
        assert ours.keys() == theirs.keys()
        for object_id, logits in theirs.items():
            assert logits.std() > 0.01
            torch.testing.assert_close(ours[object_id], logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stream", [0, 1])
def test_corrections_change_what_the_memory_alone_would_find(official, streamed, stream):
    _, uncorrected, _ = official[stream]
    starts = {}
    for frame, prompts in PROMPTS[stream].items():
        for object_id in prompts:
            starts.setdefault(object_id, frame)
    corrections = sum(map(len, PROMPTS[stream].values())) - len(starts)
    assert len(uncorrected) == corrections
    for (frame, object_id), followed in uncorrected.items():
        assert (streamed[0][stream][frame][object_id] - followed).abs().max() > 0.05


@pytest.mark.parametrize("stream", [0, 1])
def test_objects_remember_what_the_official_predictor_remembers(official, streamed, stream):
    _, _, state = official[stream]
    for object_id, memory in streamed[1][stream].items():
        outputs = state["output_dict_per_obj"][state["obj_id_to_idx"][object_id]]
        (start,) = outputs["cond_frame_outputs"].items()
        later = sorted(outputs["non_cond_frame_outputs"].items())
        recent_maps, recent_pointers = later[-len(memory.maps) :], later[-len(memory.pointers) :]
        assert memory.age == FRAMES - 1 - start[0] == len(later)
        for ours, (_, theirs) in zip(
            (memory.prompt_map, *memory.maps), (start, *recent_maps), strict=True
        ):
            # One step of bf16 around a difference of 1e-4.
            expected = theirs["maskmem_features"][0]
            torch.testing.assert_close(ours, expected, atol=1e-3, rtol=2**-7)
        for ours, (_, theirs) in zip(
            (memory.prompt_pointer, *memory.pointers), (start, *recent_pointers), strict=True
        ):
            torch.testing.assert_close(ours, theirs["obj_ptr"][0], atol=1e-4, rtol=0)


def test_memory_per_object_stops_growing(streamed):
    oldest = streamed[1][0][1]
    assert oldest.age == FRAMES - 1
    assert oldest.fill == MemoryLimits(6, 15)
    grid = SIZE // 16
    assert oldest.nbytes == 7 * 64 * grid * grid * 2 + 16 * 256 * 4


def test_bf16_sees_nearly_the_same_masks(videos):
    config = architecture.CompactConfig()
    masks = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        network = architecture.random_compact(config)
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(5.0)
        engine = StreamingEngine(network, "cpu", dtype)
        masks.append(streamed_masks(engine, videos, PROMPTS)[0][0][-1][1])
    assert masks[0].dtype == masks[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*(m.flatten() for m in masks), dim=0) > 0.99
