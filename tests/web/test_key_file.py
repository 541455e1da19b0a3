"""Files of keys: made once, for their owner only, never half written."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from db.encryption import key_text, new_key
from web.key_file import KeyFileUnusable, add_key, keep_keys, keys_of, read_keys

FIRST = """
import sys
from pathlib import Path
from web.key_file import keys_of

print(keys_of(Path(sys.argv[1]))[0].hex())
"""


def test_a_file_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "made" / "some.keys"

    keys = keys_of(path)

    assert keys_of(path) == keys
    assert len(keys[0]) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_at_once_have_the_same_keys(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    processes = [
        subprocess.Popen([sys.executable, "-c", FIRST, str(path)], stdout=subprocess.PIPE)
        for _ in range(4)
    ]

    told = {process.communicate()[0] for process in processes}

    assert len(told) == 1
    assert told.pop().strip().decode() == keys_of(path)[0].hex()


def test_a_new_key_comes_first_and_old_ones_stay_or_go(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    (old,) = keys_of(path)

    add_key(path)

    new, second = read_keys(path)
    assert second == old != new
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    add_key(path, keep=2)
    assert read_keys(path)[1:] == (new,)
    keep_keys(path, [new])
    assert read_keys(path) == (new,)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    keys_of(path)
    path.chmod(0o640)

    with pytest.raises(KeyFileUnusable, match="owner"):
        keys_of(path)


@pytest.mark.parametrize("content", ["", "\n", "short\n", "é\n", key_text(b"a" * 32)])
def test_a_file_without_good_keys_is_refused_and_not_overwritten(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "some.keys"
    path.write_text(content, "utf-8")
    path.chmod(0o600)

    with pytest.raises(KeyFileUnusable) as refused:
        keys_of(path)

    assert path.read_text("utf-8") == content
    assert not content.strip() or content.strip() not in str(refused.value)


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(KeyFileUnusable):
        keys_of(tmp_path / "file" / "some.keys")


def test_keys_are_written_as_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    keys = (new_key(), new_key())

    keep_keys(path, keys)

    assert read_keys(path) == keys
