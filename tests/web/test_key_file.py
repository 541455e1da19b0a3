"""Files of keys: made once, for their owner only, never half written."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from db.encryption import key_id_of, key_text
from web.key_file import KeyFileUnusable, KeyUnsettled, add_key, drop_keys, keys_of, read_keys

FIRST = """
import sys
from pathlib import Path
from web.key_file import keys_of

print(keys_of(Path(sys.argv[1]))[0].hex())
"""

EACH = 5
ADDED = f"""
import sys
from pathlib import Path
from web.key_file import add_key

print("ready", flush=True)
sys.stdin.read()
for _ in range({EACH}):
    add_key(Path(sys.argv[1]))
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


def test_a_new_key_comes_first_and_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    (old,) = keys_of(path)

    add_key(path)

    new, second = read_keys(path)
    assert second == old != new
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_of_keys_that_are_added_at_once_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    (first,) = keys_of(path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ADDED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()

    for process in processes:  # all are ready: now
        assert process.stdin is not None
        process.stdin.close()

    assert [process.wait() for process in processes] == [0] * 4
    keys = read_keys(path)
    assert len(set(keys)) == 1 + 4 * EACH
    assert keys[-1] == first


def test_keys_go_that_nothing_is_under_once_the_newest_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    (oldest,) = keys_of(path)
    for _ in range(2):
        add_key(path)
    newest, used, _ = read_keys(path)
    made = path.stat().st_mtime

    with pytest.raises(KeyUnsettled, match="1 s"):
        drop_keys(path, {key_id_of(used)}, now=made + 59.5, settled=60)
    before = read_keys(path)
    gone, kept = drop_keys(path, {key_id_of(used)}, now=made + 60, settled=60)

    assert before == (newest, used, oldest)
    assert read_keys(path) == (newest, used)
    assert (gone, kept) == ((key_id_of(oldest),), (key_id_of(newest), key_id_of(used)))
    assert drop_keys(path, {key_id_of(used)}, now=made, settled=60) == ((), kept)


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
