"""Files of training appear complete or not at all, whoever writes them and whatever goes wrong."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from sam2_streaming import architecture
from sam2_streaming.architecture import random_compact

from tests.unit.tiny_footage import write_footage
from tests.unit.tiny_tracker import CONFIG
from training.data.crops import crop_set
from training.jersey import checkpoints
from training.jersey.net import JerseyNet
from training.tracker import network, squares
from training.whole_file import whole, write_whole


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path):
    write_whole(tmp_path / "file", b"old")
    with whole(tmp_path / "file") as partial:
        partial.write_bytes(b"half of ")
        assert (tmp_path / "file").read_bytes() == b"old"
        partial.write_bytes(b"new")
    assert content(tmp_path) == {"file": b"new"}


def test_the_folder_of_a_file_is_made(tmp_path):
    write_whole(tmp_path / "deep" / "down" / "file", b"content")
    assert content(tmp_path / "deep" / "down") == {"file": b"content"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_goes_wrong_leaves_the_old_file_and_nothing_beside(tmp_path, error):
    write_whole(tmp_path / "file", b"old")

    def write_half():
        with whole(tmp_path / "file") as partial:
            partial.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert content(tmp_path) == {"file": b"old"}


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "file", b"old")
    with pytest.raises(FileNotFoundError), whole(tmp_path / "file"):
        pass
    assert content(tmp_path) == {"file": b"old"}


def full_disk(_, path, **__):
    path.write_bytes(b"half") if isinstance(path, Path) else path.write(b"half")
    raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.parametrize(
    ("file", "save"),
    [
        ("jersey.pt", lambda file: checkpoints.save(JerseyNet("resnet10"), file)),
        ("tracker.safetensors", lambda file: save_tracker(None, file)),
        ("sam2.1_hiera_tiny.pt", lambda file: save_tracker(Path(file.name), file)),
    ],
)
def test_weights_that_do_not_fit_on_the_disk_leave_those_before(tmp_path, monkeypatch, file, save):
    save(tmp_path / file)
    before = content(tmp_path)
    assert before.keys() == {file}
    monkeypatch.setattr(torch, "save", full_disk)
    monkeypatch.setattr(architecture, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path / file)
    assert content(tmp_path) == before


def save_tracker(init, file):
    return network.save(random_compact(CONFIG), init, file.parent)


def extract_crops(footage, out):
    return len(crop_set(footage, ("clip_0",), out))


def extract_squares(footage, out):
    squares.extract(footage, ("clip_0",), out, 80)
    return len(np.load(out / "rows.npy"))


@pytest.mark.parametrize("extract", [extract_crops, extract_squares])
def test_data_whose_extraction_was_cut_off_is_extracted_again(tmp_path, monkeypatch, extract):
    footage = write_footage(tmp_path / "footage", clips=1)
    expected = extract(footage, tmp_path / "sound")

    def cut_off(write):
        def written(file, content):
            if Path(file.name).name.startswith(("track.", "rows.")):  # which tell that all is there
                file.write(b"half")
                raise KeyboardInterrupt
            write(file, content)

        return written

    with monkeypatch.context() as patch:
        for room, name in ((np, "save"), (np.lib.format, "write_array_header_1_0")):
            patch.setattr(room, name, cut_off(getattr(room, name)))
        with pytest.raises(KeyboardInterrupt):
            extract(footage, tmp_path / "cut off")
    assert extract(footage, tmp_path / "cut off") == expected
