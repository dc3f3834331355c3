"""The file of API keys: hashes only, changed by one at a time, and never half-written."""

import contextlib
import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from orchestrator.cli import main
from orchestrator.errors import InvalidRequestError, SettingError
from orchestrator.security import keys
from orchestrator.security.keys import SETTING, add_key, list_keys, parse_keys, revoke_key


def test_a_key_is_shown_once_and_stored_as_a_hash(tmp_path):
    path = tmp_path / "keys.json"
    key = add_key(path, "acme")
    text = path.read_text()
    assert key.split("_", 2)[2] not in text
    assert path.stat().st_mode & 0o077 == 0
    assert key not in repr(list_keys(path))
    assert [stored.tenant for stored in list_keys(path)] == ["acme"]


def test_a_key_is_found_by_all_of_it_and_by_nothing_else(tmp_path):
    path = tmp_path / "keys.json"
    key, other = add_key(path, "acme"), add_key(path, "other")
    known = parse_keys({SETTING: path.read_bytes()})
    assert [known.find(one).tenant for one in (key, other)] == ["acme", "other"]
    prefix, key_id, secret = key.split("_", 2)
    foreign = other.split("_", 2)[2]
    wrong = (f"{prefix}_{key_id}", f"{prefix}_{key_id}_", f"{prefix}_{key_id}_{foreign}", secret)
    for one in (*wrong, key[:-1], f"{key}A", f"{key_id}_{secret}", key_id, ""):
        assert known.find(one) is None, one


def test_revoking_a_key_keeps_the_others_and_the_files_mode(tmp_path):
    path = tmp_path / "keys.json"
    add_key(path, "acme")
    path.chmod(0o640)
    add_key(path, "acme")
    first, second = list_keys(path)
    revoke_key(path, first.id)
    assert list_keys(path) == [second]
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(InvalidRequestError, match="id of a key"):
        revoke_key(path, first.id)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_file_stays_its_owners_whoever_adds_a_key(tmp_path):
    path = tmp_path / "keys.json"
    add_key(path, "acme")
    os.chown(path, 4321, 8765)
    add_key(path, "acme")
    assert (path.stat().st_uid, path.stat().st_gid) == (4321, 8765)


def test_a_key_file_may_be_a_link_and_stays_one(tmp_path):
    (tmp_path / "volume").mkdir()
    link, path = tmp_path / "keys.json", tmp_path / "volume" / "keys.json"
    link.symlink_to(path)
    add_key(link, "acme")
    assert link.is_symlink()
    assert len(list_keys(path)) == 1


def test_a_key_that_cannot_be_stored_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    add_key(path, "acme")
    before = path.read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "chown", Mock(side_effect=full))
    with pytest.raises(SettingError, match="No space left"):
        add_key(path, "acme")
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("tenant", ["", "Acme", "a b", "a/b", "-a", "a" * 64, "ä"])
def test_a_tenant_name_that_is_unsafe_in_logs_gets_no_key(tmp_path, tenant):
    with pytest.raises(InvalidRequestError, match="tenant"):
        add_key(tmp_path / "keys.json", tenant)


@pytest.mark.parametrize("has_link", [False, True])
def test_keys_changed_at_once_are_all_changed(tmp_path, monkeypatch, has_link):
    path = link = tmp_path / "keys.json"
    if has_link:
        link = tmp_path / "elsewhere" / "link.json"
        link.parent.mkdir()
        link.symlink_to(path)
    add_key(path, "leaver")
    (leaver,) = list_keys(path)
    together, write = threading.Barrier(3), keys._write

    def slow(*arguments):  # whoever is not kept out has read by now
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.3)
        write(*arguments)

    monkeypatch.setattr(keys, "_write", slow)
    with ThreadPoolExecutor() as pool:
        changes = [
            pool.submit(add_key, path, "first"),
            pool.submit(add_key, link, "second"),
            pool.submit(revoke_key, path, leaver.id),
        ]
        for change in changes:
            change.result()
    assert sorted(stored.tenant for stored in list_keys(path)) == ["first", "second"]


def test_a_file_that_is_not_there_is_named_and_not_taken_for_an_empty_one(tmp_path, capsys):
    path = tmp_path / "none.json"
    for action in (("list",), ("revoke", "0123456789ab")):
        assert main(["keys", *action, "--file", str(path)]) == 1
        assert f"cannot read {path}" in capsys.readouterr().err
    assert not path.exists()


def test_a_folder_that_stays_locked_is_named(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    monkeypatch.setattr(keys, "_LOCK_S", 0.1)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(SettingError, match=f"another process has locked {tmp_path}"):
            add_key(path, "acme")
    finally:
        os.close(folder)
    assert not path.exists()
    add_key(path, "acme")
    assert len(list_keys(path)) == 1


def test_a_folder_that_is_missing_is_named(tmp_path):
    path = tmp_path / "none" / "keys.json"
    with pytest.raises(SettingError, match=f"cannot write {path}: No such file or directory"):
        add_key(path, "acme")
