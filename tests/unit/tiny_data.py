"""Tiny, sound data sets of every format; tests damage them in one place each."""

import gzip
import json
from pathlib import Path

import av
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH, HEIGHT, FRAMES = 64, 48, 3
BOX = [10.0, 8.0, 20.0, 30.0]


def picture(index):
    pixels = np.full((HEIGHT, WIDTH, 3), 40 + 20 * index, np.uint8)
    pixels[8:30, 10:20] = (200, 30, 30)
    return pixels


def mask():
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[8:30, 10:20] = 1
    return pixels


def runs(pixels=None):
    pixels = mask() if pixels is None else pixels
    return coco_mask.encode(np.asfortranarray(pixels))["counts"].decode()


def write_video(path, frames=FRAMES, size=(WIDTH, HEIGHT)):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            pixels = np.resize(picture(index), (size[1], size[0], 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def write_images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(picture(index)).save(folder / name)


def write_json(path, value):
    data = json.dumps(value).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def rendered_truth():
    objects = [
        {
            "id": 1, "box_full": BOX, "box_visible": BOX, "visible_px": 220, "world": [1.0, 2.0],
            "number_box": [12.0, 12.0, 18.0, 18.0], "number_px": 70, "number_span": 1.0,
        },
        {"id": 23, "box_full": [40.0, 5.0, 50.0, 30.0], "box_visible": None, "visible_px": 0},
        {
            "id": 30, "box_full": [30.0, 30.0, 34.0, 34.0], "box_visible": [30.0, 30.0, 34.0, 34.0],
            "visible_px": 12, "world": [3.0, 4.0, 0.5],
        },
    ]  # fmt: skip
    homography = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    frame = {"objects": objects, "homography_pitch_to_image": homography}
    return {
        "width": WIDTH, "height": HEIGHT, "fps": 25, "n_frames": FRAMES, "seed": 7,
        "kits": "set k1",
        "kit_colours": {
            "left": {"shirt": [1, 2, 3], "pattern": "plain", "second": None},
            "right": {"shirt": [4, 5, 6], "pattern": "stripes", "second": [7, 8, 9]},
        },
        "overlay_boxes": [],
        "people": [
            {"id": 1, "kind": "player", "team": "left", "jersey_number": 10},
            {"id": 23, "kind": "referee", "team": None, "jersey_number": None},
        ],
        "frames": json.loads(json.dumps([frame] * FRAMES)),
    }  # fmt: skip


def rendered_masks():
    return {"size": [HEIGHT, WIDTH], "frames": [{"1": runs()}] * FRAMES}


def write_rendered(folder: Path, truth=None, masks=None, name="a"):
    write_json(folder / f"{name}.gt.json.gz", rendered_truth() if truth is None else truth)
    write_json(folder / f"{name}.masks.json.gz", rendered_masks() if masks is None else masks)
    write_video(folder / f"{name}.mp4")
    return folder


def coco_file():
    names = [f"match_a-{i}_png.rf.0af{i}.jpg" for i in range(2)] + ["match_b-7.jpg"]
    images = [
        {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(names)
    ]
    annotations = [
        {"id": 0, "image_id": 0, "category_id": 1, "bbox": [10, 8, 10, 22], "iscrowd": 0,
         "segmentation": [[10, 8, 20, 8, 20, 30, 10, 30]]},
        {"id": 1, "image_id": 0, "category_id": 2, "bbox": [30, 30, 4, 4], "segmentation": []},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 1, 5, 9]},
    ]  # fmt: skip
    categories = [
        {"id": 0, "name": "football-things", "supercategory": "none"},
        {"id": 1, "name": "player", "supercategory": "football-things"},
        {"id": 2, "name": "ball", "supercategory": "football-things"},
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_coco(folder: Path, content=None):
    split = folder / "train"
    write_images(split, [image["file_name"] for image in coco_file()["images"]])
    write_json(split / "_annotations.coco.json", coco_file() if content is None else content)
    return folder


YOLO_YAML = "train: ../train/images\nnames: [ball, player]\n"
YOLO_LINES = "1 0.25 0.5 0.2 0.4\n0 0.5 0.5 0.05 0.05\n1 0.1 0.1 0.4 0.1 0.4 0.5\n"


def write_yolo(folder: Path, yaml=YOLO_YAML, lines=YOLO_LINES):
    write_images(folder / "train" / "images", ["game-1.jpg", "game-2.jpg"])
    (folder / "train" / "labels").mkdir()
    (folder / "train" / "labels" / "game-1.txt").write_text(lines)
    (folder / "data.yaml").write_text(yaml)
    return folder


SEQINFO = (
    f"[Sequence]\nname=seq\nimDir=img1\nframeRate=25\nseqLength={FRAMES}\n"
    f"imWidth={WIDTH}\nimHeight={HEIGHT}\nimExt=.jpg\n"
)
GAMEINFO = (
    "[Sequence]\nname=seq\ngameID=9\nnum_tracklets=4\ntrackletID_1= player team left;10\n"
    "trackletID_2= goalkeepers team right;y\ntrackletID_3= ball;1\n"
    "trackletID_4= referee;side top\n"
)
MOT_ROWS = "1,1,10,8,10,22,1,1,1\n2,1,11,8,10,22,1,1,0.5\n2,2,40,8,30,22,1,7,1\n3,5,1,1,9,9,0,3,1\n"
SOCCERNET_ROWS = "".join(
    f"{row},1,-1,-1,-1\n"
    for row in ("1,1,10,8,10,22", "1,3,30,30,4,4", "2,2,1,1,9,9", "3,4,30,1,9,9")
)


def write_mot(folder: Path, seqinfo=SEQINFO, rows=MOT_ROWS, gameinfo=None):
    sequence = folder / "seq"
    write_images(sequence / "img1", [f"{i:06d}.jpg" for i in range(1, FRAMES + 1)])
    (sequence / "gt").mkdir()
    (sequence / "gt" / "gt.txt").write_text(rows)
    (sequence / "seqinfo.ini").write_text(seqinfo)
    if gameinfo is not None:
        (sequence / "gameinfo.ini").write_text(gameinfo)
    return folder


def write_soccernet(folder: Path, seqinfo=SEQINFO, rows=SOCCERNET_ROWS, gameinfo=GAMEINFO):
    return write_mot(folder, seqinfo, rows, gameinfo)


def gsr_file():
    def entry(image_id, track_id, role, jersey=None, team=None, x=10):
        return {
            "id": f"{image_id}{track_id}", "image_id": image_id, "track_id": track_id,
            "supercategory": "object", "category_id": 1,
            "attributes": {"role": role, "jersey": jersey, "team": team},
            "bbox_image": {"x": x, "y": 8, "x_center": x + 5.0, "y_center": 19.0, "w": 10, "h": 22},
            "bbox_pitch": {"x_bottom_middle": -20.5, "y_bottom_middle": -30.0},
        }  # fmt: skip

    images = [
        {"image_id": f"300{i}", "file_name": f"{i:06d}.jpg", "width": WIDTH, "height": HEIGHT}
        for i in range(1, FRAMES + 1)
    ]
    info = {"version": "1.3", "game_id": "4", "name": "SNGS-1", "im_dir": "img1",
            "frame_rate": 25, "seq_length": FRAMES}  # fmt: skip
    annotations = [
        entry("3001", 1, "player", "10", "left"),
        entry("3002", 1, "player", "10", "left"),
        entry("3002", 2, "ball", x=30),
        {"image_id": "3001", "supercategory": "pitch", "category_id": 5, "lines": {}},
    ]
    return {"info": info, "images": images, "annotations": annotations, "categories": []}


def write_gsr(folder: Path, content=None):
    sequence = folder / "SNGS-1"
    write_images(sequence / "img1", [f"{i:06d}.jpg" for i in range(1, FRAMES + 1)])
    write_json(sequence / "Labels-GameState.json", gsr_file() if content is None else content)
    return folder


def write_davis(folder: Path):
    write_images(folder / "JPEGImages" / "480p" / "corner", [f"{i:05d}.jpg" for i in range(FRAMES)])
    masks = folder / "Annotations" / "480p" / "corner"
    masks.mkdir(parents=True)
    for index in range(FRAMES):
        indices = mask() * np.uint8(index + 1)
        indices[0, :5] = 255
        image = Image.fromarray(indices, "L").convert("P")
        image.putpalette([channel for value in range(256) for channel in (value, 0, 0)])
        image.putdata(indices.ravel().tolist())
        image.save(masks / f"{index:05d}.png")
    return folder


WRITERS = {
    "rendered": write_rendered,
    "coco": write_coco,
    "yolo": write_yolo,
    "mot": write_mot,
    "soccernet-tracking": write_soccernet,
    "soccernet-gsr": write_gsr,
    "davis": write_davis,
}
