"""What is scored was never learnt: not under another name, and not unsaid in the same shirts."""

import shutil

import pytest

from tests.unit.tiny_footage import write_footage
from training.__main__ import main
from training.errors import InputError
from training.run.config import Split
from training.run.leaks import check_split


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = write_footage(tmp_path_factory.mktemp("footage"), clips=4)
    for suffix in ("mp4", "gt.json.gz", "masks.json.gz"):
        shutil.copy(folder / f"clip_1.{suffix}", folder / f"again.{suffix}")
    return folder


@pytest.mark.parametrize("name", ["again", "./clip_1"])
def test_a_held_out_recording_is_refused_under_any_name(footage, name):
    clips = Split(train=("clip_0", name), held_out=("clip_1",))
    with pytest.raises(InputError, match=r"clips\.train: .*clip_1 are both of seed 1"):
        check_split(clips, footage)


def test_a_shirt_worn_on_both_sides_is_told(footage):
    told = check_split(Split(train=("clip_0", "clip_1"), held_out=("clip_2", "clip_3")), footage)
    assert len(told) == 1, "the kits of clip_3 are those of clip_0"
    assert told[0].startswith("clip_0 trains, but shares the shirt")


def test_the_command_refuses_before_it_trains(footage, tmp_path, capsys):
    clips = ['clips.train=["clip_0","again"]', "clips.calibration=[]", 'clips.held_out=["clip_1"]']
    options = [f"--set={one}" for one in clips]
    places = ["--footage", str(footage), "--work", str(tmp_path / "work")]
    assert main(["train", "jersey", *places, *options]) == 1
    assert "both of seed 1" in capsys.readouterr().err
    assert not (tmp_path / "work" / "run").exists()
