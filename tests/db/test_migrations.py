"""Migrations are applied once, in order, and only on top of what they were written for."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from db.errors import SchemaEdited, SchemaMissing, SchemaNewer
from db.migrations import (
    PLAIN,
    TIMESCALE,
    load,
    migrate,
    mode_of,
    offers_timescale,
    verify,
)
from market.errors import StoreUnavailable

SQL = Path(__file__).parents[2] / "sql"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain").mkdir()
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (n integer);")
    (tmp_path / "plain" / "0002_second.sql").write_text("INSERT INTO first VALUES (1);")
    (tmp_path / "0003_third.sql").write_text("INSERT INTO first VALUES (2);")
    return tmp_path


async def _rows(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return [row["n"] for row in await connection.fetch("SELECT n FROM first ORDER BY n")]
    finally:
        await connection.close()


async def test_files_of_folder_and_mode_are_applied_once_in_one_order(
    empty_url: str, folder: Path
) -> None:
    applied = await migrate(empty_url, folder)
    again = await migrate(empty_url, folder)

    assert applied == ["0001_first.sql", "plain/0002_second.sql", "0003_third.sql"]
    assert again == []
    assert await _rows(empty_url) == [1, 2]


async def test_of_many_concurrent_starts_one_applies_each_file(
    empty_url: str, folder: Path
) -> None:
    results = await asyncio.gather(*(migrate(empty_url, folder) for _ in range(6)))

    assert sorted(map(len, results)) == [0, 0, 0, 0, 0, 3]
    assert await _rows(empty_url) == [1, 2]


async def test_start_refuses_a_migration_edited_after_it_was_applied(
    empty_url: str, folder: Path
) -> None:
    await migrate(empty_url, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (n bigint);")

    with pytest.raises(SchemaEdited) as refusal:
        await migrate(empty_url, folder)

    assert refusal.value.name == "0001_first.sql"
    with pytest.raises(SchemaEdited):
        await verify(empty_url, folder)


async def test_start_refuses_a_migration_put_before_applied_ones(
    empty_url: str, folder: Path
) -> None:
    third = (folder / "0003_third.sql").rename(folder / "0004_third.sql")
    await migrate(empty_url, folder)
    (folder / "0003_late.sql").write_text("INSERT INTO first VALUES (3);")

    with pytest.raises(SchemaEdited) as refusal:
        await migrate(empty_url, folder)

    assert third.exists()
    assert refusal.value.name == "0003_late.sql"
    assert await _rows(empty_url) == [1, 2]


async def test_start_refuses_a_schema_of_a_newer_release(empty_url: str, folder: Path) -> None:
    (folder / "0004_fourth.sql").write_text("INSERT INTO first VALUES (4);")
    await migrate(empty_url, folder)
    (folder / "0004_fourth.sql").unlink()

    with pytest.raises(SchemaNewer) as refusal:
        await migrate(empty_url, folder)

    assert refusal.value.names == ("0004_fourth.sql",)


async def test_a_process_that_does_not_migrate_refuses_a_missing_schema(
    empty_url: str, folder: Path
) -> None:
    with pytest.raises(SchemaMissing) as refusal:
        await verify(empty_url, folder)

    assert refusal.value.names[0] == "0001_first.sql"
    await migrate(empty_url, folder)
    await verify(empty_url, folder)


async def test_a_file_that_fails_leaves_nothing_and_keeps_those_before(
    empty_url: str, folder: Path
) -> None:
    (folder / "0003_third.sql").write_text("INSERT INTO first VALUES (2); SELECT 1 / 0;")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_url, folder)

    assert await _rows(empty_url) == [1]
    (folder / "0003_third.sql").write_text("INSERT INTO first VALUES (2);")
    assert await migrate(empty_url, folder) == ["0003_third.sql"]


def test_numbers_are_unique_across_folder_and_mode(folder: Path) -> None:
    (folder / "plain" / "0003_again.sql").write_text("SELECT 1;")

    with pytest.raises(ValueError, match="same number"):
        load(folder)


async def test_a_new_store_is_in_the_best_mode_its_server_offers(
    empty_url: str, server_url: str
) -> None:
    before = await mode_of(empty_url)

    applied = await migrate(empty_url, SQL)

    mode = TIMESCALE if await offers_timescale(server_url) else PLAIN
    assert before is None
    assert f"{mode}/0002_rollups.sql" in applied
    assert await mode_of(empty_url) == mode
    await verify(empty_url, SQL)


async def test_a_plain_store_stays_plain_whatever_its_server_offers(empty_url: str) -> None:
    await migrate(empty_url, SQL, mode=PLAIN)

    again = await migrate(empty_url, SQL)

    assert again == []
    assert await mode_of(empty_url) == PLAIN
    await verify(empty_url, SQL)


async def test_a_store_is_not_taken_for_one_of_another_mode(empty_url: str, folder: Path) -> None:
    (folder / "timescale").mkdir()
    (folder / "timescale" / "0002_second.sql").write_text("INSERT INTO first VALUES (3);")
    await migrate(empty_url, folder, mode=TIMESCALE)

    with pytest.raises(SchemaNewer) as refusal:
        await migrate(empty_url, folder, mode=PLAIN)

    assert refusal.value.names == ("timescale/0002_second.sql",)
    assert await migrate(empty_url, folder) == []
    assert await _rows(empty_url) == [2, 3]


@pytest.mark.parametrize("server_url", ["timescale"], indirect=True, scope="session")
async def test_a_role_that_may_not_create_extensions_gets_a_plain_store(
    empty_url: str, server_url: str
) -> None:
    role = f"modest_{uuid4().hex}"
    name = urlsplit(empty_url).path[1:]
    admin = await asyncpg.connect(server_url)
    try:
        await admin.execute(f"CREATE ROLE {role} LOGIN")
        modest = urlsplit(empty_url)
        url = urlunsplit(modest._replace(netloc=f"{role}@{modest.netloc.rpartition('@')[2]}"))

        refused = await offers_timescale(url)
        await admin.execute(f"GRANT CREATE ON DATABASE {name} TO {role}")
        granted = await offers_timescale(url)
    finally:
        await admin.execute(f"DROP OWNED BY {role}")
        await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM {role}")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()

    assert (refused, granted) == (False, True)


async def test_a_server_that_is_away_is_named_as_such_without_its_address() -> None:
    with pytest.raises(StoreUnavailable) as refusal:
        await migrate("postgresql://someone:secret@127.0.0.1:1/nowhere", SQL)

    assert "secret" not in str(refusal.value)
    assert "127.0.0.1" not in str(refusal.value)
