"""Directories for embedded servers that are empty of processes in the end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.db.embedded.processes import Scratch, User, eventually


@pytest.fixture
def make_scratch(tmp_path: Path) -> Iterator[Callable[..., Scratch]]:
    made: list[Scratch] = []

    def make(directory: Path | None = None) -> Scratch:
        made.append(Scratch((directory or tmp_path / "servers").resolve()))
        return made[-1]

    yield make
    for scratch in made:
        assert eventually(scratch.is_empty), f"{scratch.servers()} {scratch.keepers()} are left"


@pytest.fixture
def scratch(make_scratch: Callable[..., Scratch]) -> Scratch:
    return make_scratch()


@pytest.fixture
def start_user(scratch: Scratch) -> Iterator[Callable[..., User]]:
    started: list[User] = []

    def start(directory: Path | None = None, *, packages: Path | None = None) -> User:
        started.append(User(directory or scratch.directory, packages=packages))
        return started[-1]

    yield start
    for user in started:
        user.process.kill()
        user.process.communicate()
