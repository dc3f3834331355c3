from collections import OrderedDict

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2_video_predictor
from sam2_streaming import architecture
from sam2_streaming.engine import StreamingEngine, Target

SIZE = 128
FRAMES = 18
# Two streams of different ages; objects join while others are tracked.
PROMPTS = (
    {0: {1: (10, 15, 40, 60)}, 3: {2: (50, 20, 75, 70)}, 4: {3: (5, 5, 20, 30)}},
    {0: {7: (30, 30, 60, 100)}, 9: {8: (3, 50, 45, 90)}},
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


def official_masks(predictor, video, prompts):
    state, masks = official_state(video), []
    for frame in range(len(video)):
        for object_id, box in prompts.get(frame, {}).items():
            predictor.add_new_points_or_box(state, frame, object_id, box=box)
        for _, ids, logits in predictor.propagate_in_video(state, frame, 0):
            masks.append(dict(zip(ids, logits[:, 0], strict=True)))
    return masks


def streamed_masks(engine, videos, all_prompts):
    masks, memories = [[] for _ in videos], [{} for _ in videos]
    for frame in range(FRAMES):
        keys, targets = [], []
        for stream, prompts in enumerate(all_prompts):
            boxes = prompts.get(frame, {})
            for object_id in {**memories[stream], **boxes}:
                box = boxes.get(object_id)
                box = None if box is None else np.array(box, np.float32)
                keys.append((stream, object_id))
                targets.append(Target(stream, memories[stream].get(object_id), box))
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


@pytest.mark.parametrize("stream", [0, 1])
def test_batched_streams_equal_the_official_predictor(predictor, videos, streamed, stream):
    expected = official_masks(predictor, videos[stream], PROMPTS[stream])
    assert len(expected) == FRAMES
    for ours, theirs in zip(streamed[0][stream], expected, strict=True):
        assert ours.keys() == theirs.keys()
        for object_id, logits in theirs.items():
            assert logits.std() > 0.01
            torch.testing.assert_close(ours[object_id], logits, atol=1e-4, rtol=0)


def test_memory_per_object_stops_growing(streamed):
    oldest = streamed[1][0][1]
    assert oldest.age == FRAMES - 1
    assert oldest.shape == (6, 15)
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


def test_a_target_needs_a_memory_or_a_box():
    with pytest.raises(ValueError, match="expected a memory to follow or a box"):
        Target(0)
