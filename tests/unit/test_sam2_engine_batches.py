from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sam2_streaming.architecture import CompactConfig, random_compact
from sam2_streaming.engine import StreamingEngine, Target
from sam2_streaming.memory import MemoryLimits, ObjectMemory
from sam2_streaming.prompts import Prompt
from sam2_streaming.windows import Window, exclusive

CONFIG = CompactConfig(image_size=64, channels=64, embed_dim=8, memory_frames=3, pointers=4)
SIZE = CONFIG.image_size
# Three maps of 4x4x64 bf16 and four pointers of 64 fp32.
MOST_BYTES = 3 * 4 * 4 * 64 * 2 + 4 * 64 * 4
BOX = Prompt.box(np.array([10, 10, 40, 50], np.float32))
CLICK = Prompt(np.array([[30, 30]], np.float32), np.array([1], np.int32))
MASK = Prompt.of_mask(np.pad(np.ones((24, 16), bool), ((20, 20), (24, 24))))
PROMPTS = {
    "box": BOX,
    "click": CLICK,
    "box and click": BOX.with_clicks([[20, 20]], [0]),
    "mask": MASK,
}


def keep(logits):
    return logits


def network(presence=5.0):
    """A random network that always says "in sight" (5) or "absent" (-50)."""
    torch.manual_seed(0)
    random = random_compact(CONFIG)
    random.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(presence)
    return random


@cache
def engine(**options):
    presence = options.pop("presence", 5.0)
    return StreamingEngine(network(presence), "cpu", torch.float32, **options)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def life(engine, births, frames):
    """Objects appear by `births` (frame to count) and are tracked; masks by frame."""
    memories, masks = [], []
    for frame in range(frames):
        targets = [Target(k, memory) for k, memory in enumerate(memories)]
        targets += [Target(len(targets) + k, None, BOX) for k in range(births.get(frame, 0))]
        estimates = engine.step(pictures(len(targets), frame), targets, keep)
        memories = estimates.memories
        masks.append(estimates.logits)
    return masks, memories


BIRTHS = {0: 1, 2: 2, 3: 1, 5: 5, 6: 1}


def shapes_seen(engine):
    """Shapes that reach the parts of the network from now on, by part."""
    network, seen = engine._network, {}

    def watch(name, module):
        def note(_, args, kwargs):
            tensors = [*args, *kwargs.values()]
            shapes = tuple(tuple(t.shape) for t in tensors if isinstance(t, torch.Tensor))
            seen.setdefault(name, set()).add(shapes)

        module.register_forward_pre_hook(note, with_kwargs=True)

    layer = network.memory_attention.layers[0]
    watch("images", network.image_encoder)
    watch("attention, features", layer.norm1)
    watch("attention, memory", layer.cross_attn_image.k_proj)
    watch("decoder", network.sam_mask_decoder)
    watch("memory encoder", network.memory_encoder)
    return seen


def test_padding_shows_the_network_few_shapes():
    padded = StreamingEngine(network(), "cpu", torch.float32, pads=True)
    seen = shapes_seen(padded)
    life(padded, BIRTHS, 9)
    # Steps of 1, 3, 4, 9 and 10 objects become batches of 1, 4 and 16; births 1, 2 and 8.
    assert len(seen["images"]) == len(seen["memory encoder"]) == 3
    assert len(seen["attention, features"]) == len(seen["attention, memory"]) == 3
    assert len(seen["decoder"]) == 3 + 3

    exact = StreamingEngine(network(), "cpu", torch.float32, pads=False)
    seen = shapes_seen(exact)
    life(exact, BIRTHS, 9)
    assert len(seen["attention, memory"]) > 8


def test_large_batches_are_worked_off_in_parts_without_changing_a_mask(monkeypatch):
    whole, _ = life(engine(), BIRTHS, 5)
    tokens = (SIZE // 16) ** 2
    monkeypatch.setattr("sam2_streaming.engine._TOKENS_IN_CPU_BATCH", 2 * tokens)
    in_parts = StreamingEngine(network(), "cpu", torch.float32)
    seen = shapes_seen(in_parts)
    masks, _ = life(in_parts, BIRTHS, 5)
    for part in ("images", "attention, features", "decoder"):
        assert max(shape[0][0] for shape in seen[part]) == 2
    for expected, found in zip(whole, masks, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_padding_changes_results_by_rounding_only():
    exact, memories = life(engine(pads=False), BIRTHS, 9)
    padded, padded_memories = life(engine(pads=True), BIRTHS, 9)
    for ours, expected in zip(padded, exact, strict=True):
        assert expected.std() > 0.01
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    for ours, expected in zip(padded_memories, memories, strict=True):
        assert ours.fill == expected.fill
        torch.testing.assert_close(ours.pointers, expected.pointers, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
def test_a_target_is_found_alone_as_in_company(kind, pads):
    one, images = engine(pads=pads), pictures(4)
    old = life(one, {0: 3}, 2)[1] + life(one, {0: 1}, 5)[1]
    targets = [Target(k, memory) for k, memory in enumerate(old)]
    targets[1] = Target(1, old[1], PROMPTS[kind])
    targets += [Target(2, None, prompt) for prompt in PROMPTS.values()]
    together = one.step(images, targets, keep)
    for k in (1, 3, 4 + list(PROMPTS).index(kind)):
        alone = one.step(images, [targets[k]], keep)
        torch.testing.assert_close(alone.logits[0], together.logits[k], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.scores[0], together.scores[k], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pads", [False, True])
def test_the_same_input_gives_the_same_bits(pads):
    masks, memories = life(engine(pads=pads), BIRTHS, 8)
    again, memories_again = life(engine(pads=pads), BIRTHS, 8)
    for one, other in zip(masks, again, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(memories, memories_again, strict=True):
        assert torch.equal(torch.stack(one.maps), torch.stack(other.maps))
        assert torch.equal(torch.stack(one.pointers), torch.stack(other.pointers))


def test_pictures_may_lie_on_the_device():
    images, targets = pictures(1), [Target(0, None, BOX)]
    given = engine().step(torch.from_numpy(images), targets, keep)
    assert torch.equal(given.logits, engine().step(images, targets, keep).logits)


def test_a_mask_prompt_is_the_estimate():
    (logits,) = engine().step(pictures(1), [Target(0, None, MASK)], keep).logits
    inside = logits.numpy() > 0
    assert (inside & MASK.mask).sum() > 0.95 * (inside | MASK.mask).sum()


def hide_first(logits):
    hidden = logits.clone()
    hidden[0] = -10.0
    return hidden


def test_frames_of_hidden_objects_are_not_remembered():
    choosy = engine(min_memory_score=0.2)
    start = choosy.step(pictures(2), [Target(k, None, BOX) for k in range(2)], keep)
    hidden = choosy.step(
        pictures(2, 1), [Target(k, start.memories[k]) for k in range(2)], hide_first
    )
    assert hidden.scores.min() > 0.2
    assert hidden.memories[0] is start.memories[0]
    assert hidden.memories[1].age == 1
    seen = choosy.step(pictures(2, 2), [Target(k, hidden.memories[k]) for k in range(2)], keep)
    assert [memory.age for memory in seen.memories] == [1, 2]


def test_frames_of_low_score_are_not_remembered_unless_prompted():
    choosy = engine(min_memory_score=0.2, presence=-50.0)
    start = choosy.step(pictures(1), [Target(0, None, BOX)], keep)
    followed = choosy.step(pictures(1, 1), [Target(0, start.memories[0])], keep)
    assert followed.scores.max() < 0.2
    assert followed.memories[0] is start.memories[0]
    corrected = choosy.step(pictures(1, 1), [Target(0, start.memories[0], CLICK)], keep)
    assert corrected.memories[0].age == 1


def test_every_frame_is_remembered_by_default():
    default = engine(presence=-50.0)
    (memory,) = default.step(pictures(1), [Target(0, None, BOX)], keep).memories
    (memory,) = default.step(pictures(1, 1), [Target(0, memory)], hide_first).memories
    assert memory.age == 1


def held_bytes(memory):
    """What a memory keeps alive, which views of a larger batch would exceed."""
    kept = (memory.prompt_map, memory.prompt_pointer, *memory.maps, *memory.pointers)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept)


actions = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["start", "follow"]), st.sampled_from([None, *PROMPTS])),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=7,
)


@given(actions, st.booleans())
@settings(max_examples=15, deadline=None)
def test_no_order_of_prompts_and_frames_exceeds_the_memory_bound(steps, pads):
    memories = {}
    for number, step in enumerate(steps):
        targets = {}
        for k, (action, name) in enumerate(step):
            memory = memories.get(k) if action == "follow" else None
            prompt = PROMPTS[name] if name else None if memory else BOX
            targets[k] = Target(0, memory, prompt)
        estimates = engine(pads=pads).step(pictures(1, number), list(targets.values()), keep)
        memories |= dict(zip(targets, estimates.memories, strict=True))
        for memory in memories.values():
            assert memory.nbytes == held_bytes(memory) <= MOST_BYTES


def test_a_target_needs_a_memory_or_a_prompt():
    with pytest.raises(ValueError, match="expected a memory to follow or a prompt"):
        Target(0)


def test_prompts_of_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="expected points"):
        Prompt(np.zeros((2, 2), np.float32), np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="expected a point or a mask"):
        Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int32))


@pytest.mark.parametrize("limits", [MemoryLimits(0, 0), MemoryLimits(1, 0), MemoryLimits(0, 2)])
def test_a_ring_without_room_stays_empty(limits):
    memory = ObjectMemory(torch.zeros(1), torch.zeros(1))
    for _ in range(5):
        memory = memory.after(torch.zeros(1), torch.zeros(1), limits)
    assert memory.fill == limits


def test_masks_are_parted_in_fp32_also_where_the_network_computes_in_bf16():
    rows = torch.arange(SIZE, dtype=torch.float32)
    claims = torch.stack([20 - (rows[None] - x).abs().expand(SIZE, SIZE) for x in (40, 24)])
    windows = [Window(0, 0, 1000, 1000), Window(333, 77, 1000, 1000)]
    parted = []

    def part(logits):
        parted.append(exclusive(claims, windows))
        return logits

    in_bf16 = StreamingEngine(network(), "cpu", torch.bfloat16)
    in_bf16.step(pictures(1), [Target(0, None, BOX)], part)
    torch.testing.assert_close(parted[0], exclusive(claims, windows), atol=0, rtol=0)
