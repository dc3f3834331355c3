"""A made-up match of 20 frames with exact truth, and the results of a perfect run on it.

Everybody is a rectangle of 12 x 24 px who moves 1 px a frame; 4 px are 1 m of the pitch.
"""

import copy
import gzip
import json

import av
import numpy as np
from pycocotools import mask as coco_mask

FRAMES, WIDTH, HEIGHT = 20, 400, 192
BALL, IGNORED = 30, 5
LEFT, RIGHT = (2, 3, 4), (13, 14, 15)
KEEPERS = (1, 12)
OFFICIALS = (23, 24)
ASKED = (*KEEPERS, *LEFT, *RIGHT, *OFFICIALS)
READABLE = (2, 3, 13)
"""Their numbers can be read in 10 frames; that of 4 in only 4, the others' never."""
GLIMPSED = 4

_PLACES = {person: 10 + 34 * place for place, person in enumerate((*ASKED, IGNORED))}
_ROLES = dict.fromkeys(KEEPERS, "ROLE_GOALKEEPER") | dict.fromkeys(OFFICIALS, "ROLE_REFEREE")
_TO_IMAGE = [[4.0, 0.0, WIDTH / 2], [0.0, -4.0, HEIGHT / 2], [0.0, 0.0, 1.0]]


def place(person, frame):
    """The true box of a person, xyxy."""
    x, y = _PLACES[person] + frame, 60 if person % 2 else 120
    return [x, y, x + 12, y + 24]


def ball_place(frame):
    return [200 + 2 * frame, 20, 206 + 2 * frame, 26]


def write_truth(folder, name="synthetic"):
    """Write the three files of the clip."""
    folder.mkdir(exist_ok=True)
    truth = {
        "width": WIDTH,
        "height": HEIGHT,
        "fps": 25,
        "n_frames": FRAMES,
        "seed": 1,
        "kit_colours": None,
        "people": [_person(number) for number in (*ASKED, IGNORED)],
        "frames": [
            {"objects": _objects(i), "homography_pitch_to_image": _TO_IMAGE} for i in range(FRAMES)
        ],
    }
    masks = {
        "size": [HEIGHT, WIDTH],
        "frames": [{str(n): rle(place(n, i)) for n in _PLACES} for i in range(FRAMES)],
    }
    for kind, content in (("gt", truth), ("masks", masks)):
        path = folder / f"{name}.{kind}.json.gz"
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
    _write_video(folder / f"{name}.mp4")


def rle(box):
    """The mask of a box, as COCO's compressed run lengths."""
    x0, y0, x1, y1 = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    return coco_mask.encode(mask)["counts"].decode()


def perfect():
    """Responses of a run that says all that can be known: recognitions, then the summary."""
    frames = [
        {
            "frame_index": str(index),
            "width_px": WIDTH,
            "height_px": HEIGHT,
            "players": [_player(person, index) for person in ASKED],
            "ball": {"box": _sides(ball_place(index)), "confidence": 0.8},
        }
        for index in range(FRAMES)
    ]
    tracks = [{"track_id": str(person), **_said(person)} for person in ASKED]
    return [{"recognition": frame} for frame in frames] + [{"summary": {"tracks": tracks}}]


def damaged(change):
    """The perfect responses after `change(recognition)` on each recognition."""
    responses = copy.deepcopy(perfect())
    for response in responses[:-1]:
        change(response["recognition"])
    return responses


def write_run(folder, responses, video="synthetic.mp4"):
    """Write `results.jsonl` and `summary.json`."""
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in responses))
    (folder / "summary.json").write_text(json.dumps({"video": video}))
    return folder


def move(box, right=0.0, down=0.0):
    """Move a reported box."""
    for side, by in (("x_min", right), ("x_max", right), ("y_min", down), ("y_max", down)):
        box[side] += by


def _person(number):
    if number in OFFICIALS:
        kind = "referee" if number == 23 else "assistant_referee"
        return {"id": number, "kind": kind, "team": None, "jersey_number": None}
    kind = "goalkeeper" if number in KEEPERS else "player"
    team = "left" if number < 12 else "right"
    return {"id": number, "kind": kind, "team": team, "jersey_number": number + 10}


def _objects(frame):
    people = [_seen(person, frame) for person in ASKED]
    x0, y0, x1, y1 = place(IGNORED, frame)
    hidden = {"box_visible": [x0, y0, x0 + 5, y0 + 6], "visible_px": 30}
    ball = {"id": BALL, "box_full": ball_place(frame), "box_visible": ball_place(frame)}
    return [
        *people,
        {"id": IGNORED, "box_full": [x0, y0, x1, y1], **hidden},
        {**ball, "visible_px": 36},
    ]


def _seen(person, frame):
    box = place(person, frame)
    seen = {"id": person, "box_full": box, "box_visible": box, "visible_px": 12 * 24}
    if frame < {GLIMPSED: 4, **dict.fromkeys(READABLE, 10)}.get(person, 0):
        seen |= {"number_span": 0.9, "number_px": 80}
    return seen


def _said(person):
    said = {"role": _ROLES.get(person, "ROLE_PLAYER")}
    if person not in OFFICIALS:
        said["team"] = "TEAM_B" if person < 12 else "TEAM_A"
    if person in (*READABLE, GLIMPSED):
        said |= {"jersey_number": person + 10, "jersey_number_confidence": person / 20}
    return said


def _player(person, frame):
    box = place(person, frame)
    mask = {"height": HEIGHT, "width": WIDTH, "rle_counts": rle(box)}
    return {
        "track_id": str(person),
        "box": _sides(box),
        "mask": mask,
        "confidence": 0.9,
        **_said(person),
    }


def _sides(box):
    return dict(zip(("x_min", "y_min", "x_max", "y_max"), map(float, box), strict=True))


def _write_video(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
