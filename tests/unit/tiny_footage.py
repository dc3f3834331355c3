"""Rendered clips of the training format in miniature: blocks as people, on a green pitch."""

import gzip
import json

import av
import numpy as np
from pycocotools import mask as coco_mask

WIDTH, HEIGHT, FRAMES = 192, 128, 24
BODY = (14, 40)
KITS = (
    {"left": (200, 30, 40), "right": (240, 240, 240)},
    {"left": (30, 60, 190), "right": (235, 210, 40)},
    {"left": (20, 20, 22), "right": (100, 205, 230)},
)
PEOPLE = [
    {"id": 1, "kind": "player", "team": "left", "jersey_number": 7},
    {"id": 2, "kind": "player", "team": "right", "jersey_number": 23},
    {"id": 3, "kind": "referee", "team": None, "jersey_number": None},
]


def write_footage(folder, clips=3):
    """Write `clip_0`, `clip_1`, ... and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(clips):
        _write_clip(folder, f"clip_{index}", index)
    return folder


def _write_clip(folder, name, index):
    kits = KITS[index % len(KITS)]
    frames, masks, pictures = [], [], []
    for frame in range(FRAMES):
        picture = np.full((HEIGHT, WIDTH, 3), (60, 140, 60), np.uint8)
        silhouettes = {}
        objects = [_draw(picture, silhouettes, person, kits, frame) for person in PEOPLE]
        frames.append({"frame": frame, "objects": objects})
        masks.append(silhouettes)
        pictures.append(picture)
    _write_video(folder / f"{name}.mp4", pictures)
    _write_json(folder / f"{name}.gt.json.gz", _truth(index, kits, frames))
    _write_json(folder / f"{name}.masks.json.gz", {"size": [HEIGHT, WIDTH], "frames": masks})


def _draw(picture, silhouettes, person, kits, frame):
    x0, y0 = 20 + 45 * person["id"] + frame, 30 + 10 * person["id"]
    x1, y1 = x0 + BODY[0], y0 + BODY[1]
    x1 = min(x1, WIDTH)
    picture[y0:y1, x0:x1] = kits.get(person["team"], (10, 10, 10))
    picture[y0 + 8 : y0 + 18, x0 + 3 : x0 + 11] = (250, 250, 120)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y0:y1, x0:x1] = 1
    silhouettes[str(person["id"])] = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    box = [float(x0), float(y0), float(x1), float(y1)]
    seen = {"id": person["id"], "box_full": box, "box_visible": box, "visible_px": int(mask.sum())}
    if person["jersey_number"] is not None:
        number_box = [x0 + 3.0, y0 + 8.0, x0 + 11.0, y0 + 18.0]
        seen |= {"number_box": number_box, "number_px": 80, "number_span": 1.0}
    return seen


def _truth(index, kits, frames):
    worn = {
        side: {"shirt": colour, "second": None, "pattern": "plain", "shorts": (20, 20, 20)}
        for side, colour in kits.items()
    }
    return {
        "width": WIDTH, "height": HEIGHT, "fps": 25, "n_frames": FRAMES, "seed": index,
        "kit_colours": worn, "overlay_boxes": [], "people": PEOPLE, "frames": frames,
    }  # fmt: skip


def _write_video(path, pictures):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_json(path, content):
    path.write_bytes(gzip.compress(json.dumps(content).encode(), 1))
