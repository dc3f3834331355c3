import numpy as np
import pytest
import torch
from sam2_streaming.architecture import CompactConfig, random_compact
from sam2_streaming.engine import StreamingEngine, Target

from training.tracker.objective import Outputs, loss, noisy_boxes, track
from training.tracker.squares import ROW, SQUARE_PX
from training.tracker.tracklets import MEAN, STD, Difficulty, Tracklets

CONFIG = CompactConfig(image_size=64, channels=64, embed_dim=8, memory_frames=3, pointers=4)


def test_training_sees_what_serving_sees():
    torch.manual_seed(0)
    network = random_compact(CONFIG)
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(5.0)
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 64, 64, 3), np.uint8)
    boxes = np.array([(10, 10, 40, 60), (20, 5, 50, 45)], np.float32)
    pictures = torch.from_numpy((images / 255 - MEAN) / STD).float().permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        outputs = track(network, pictures, torch.from_numpy(boxes).view(2, 2, 2), 1)

    engine = StreamingEngine(network, "cpu", torch.float32)
    memories = [None, None]
    for frame, expected in zip(images, outputs.logits, strict=True):
        targets = [Target(k, memories[k], None if memories[k] else boxes[k]) for k in range(2)]
        estimates = engine.step(frame, targets, lambda logits: logits)
        memories = estimates.memories
        torch.testing.assert_close(estimates.logits, expected, atol=1e-2, rtol=0)
        assert expected.std() > 0.01


def disc_masks():
    ys, xs = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (((xs - 30) ** 2 + (ys - 20) ** 2) < 100).float()
    return torch.stack([disc, torch.zeros(64, 64)]).reshape(2, 1, 64, 64)


def test_loss_prefers_the_truth():
    masks = disc_masks()
    present = torch.tensor([[4.0], [-4.0]])
    right = Outputs(masks * 16 - 8, torch.ones(2, 1), present)
    shifted = Outputs(masks.roll(6, -1) * 16 - 8, torch.ones(2, 1), present)
    blind = Outputs(masks * 16 - 8, torch.ones(2, 1), -present)
    assert loss(right, masks) < 0.1
    assert loss(shifted, masks) > 5 * loss(right, masks)
    assert loss(blind, masks) > 5 * loss(right, masks)


def test_prompt_boxes_are_tight_but_for_the_noise():
    masks = disc_masks()[:1, 0]
    exact = noisy_boxes(masks, 0.0, torch.Generator())
    assert exact.tolist() == [[[21, 11], [40, 30]]]
    noisy = noisy_boxes(masks, 0.1, torch.Generator().manual_seed(0))
    assert 0 < (noisy - exact).abs().max() < 10


@pytest.fixture
def squares(tmp_path):
    """Two clips with two people each, 60 frames; a person is a grey block."""
    keys = [(c, p, f) for c in range(2) for p in range(2) for f in range(60)]
    rows = np.zeros(len(keys), ROW)
    rows["clip"], rows["person"], rows["frame"] = np.array(keys).T
    rows["height"], rows["side"], rows["seen"] = 40, 140, 0.5
    rows["cx"] = rows["cy"] = 100
    rows["x0"] = rows["y0"] = 30
    rows["toward_x"] = 0.8
    pixels = np.zeros((len(keys), SQUARE_PX, SQUARE_PX, 4), np.uint8)
    pixels[:, 57:103, 73:87] = (128, 128, 128, 255)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "squares.npy", pixels)
    return tmp_path


def test_tracklets_start_with_a_visible_person_and_repeat_by_seed(squares):
    tracklets = Tracklets(squares, 64)
    difficulty = Difficulty(1, 1, 1, 1)
    pictures, masks = tracklets.batch(np.random.default_rng(3), 8, 6, difficulty)
    assert pictures.shape == (6, 8, 3, 64, 64)
    assert masks.shape == (6, 8, 64, 64)
    assert pictures.dtype == masks.dtype == np.float32
    assert (masks[0].sum((-1, -2)) > 100).all()
    assert (masks[1:].sum((-1, -2)) == 0).any(axis=0).all(), "every tracklet is interrupted once"
    again = tracklets.batch(np.random.default_rng(3), 8, 6, difficulty)
    np.testing.assert_array_equal(pictures, again[0])
    np.testing.assert_array_equal(masks, again[1])


def test_plain_tracklets_keep_the_person_near_the_middle(squares):
    plain = Difficulty(0, 0, 0, 0, augmented=False)
    _, masks = Tracklets(squares, 64).batch(np.random.default_rng(0), 6, 4, plain)
    rows, columns = np.nonzero(masks.reshape(-1, 64, 64))[1:]
    assert abs(rows.mean() - 31.5) < 3
    assert abs(columns.mean() - 31.5) < 3
