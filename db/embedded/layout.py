"""Where everything of the embedded servers lies inside one directory."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The names below *directory*, which is absolute and free of symbolic links."""

    directory: Path

    @property
    def users_lock(self) -> Path:
        """Shared by every user; the keeper looks whether anybody still holds it."""
        return self.directory / "users.lock"

    @property
    def start_lock(self) -> Path:
        """Held while starting, and while the keeper decides that nobody is left."""
        return self.directory / "start.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper for as long as it lives."""
        return self.directory / "keeper.lock"

    @property
    def keeper_log(self) -> Path:
        return self.directory / "keeper.log"

    @property
    def postgres(self) -> Path:
        """The database cluster, with its socket inside."""
        return self.directory / "postgres"

    @property
    def postgres_staging(self) -> Path:
        """A cluster being made; renamed once it is whole, so that a half-made one never counts."""
        return self.directory / "postgres.new"

    @property
    def postgres_log(self) -> Path:
        return self.directory / "postgres.log"

    @property
    def valkey(self) -> Path:
        return self.directory / "valkey"

    @property
    def valkey_log(self) -> Path:
        return self.directory / "valkey.log"

    @property
    def failure(self) -> Path:
        """What the keeper ended of, for the users to read; absent after an orderly end."""
        return self.directory / "keeper.failure"


@dataclass(frozen=True, slots=True)
class Failure:
    """What the keeper tells its users when it gives up."""

    server: str
    reason: str
    log: Path

    def write(self, path: Path) -> None:
        """Leave this failure at *path*, whole or not at all."""
        draft = path.with_suffix(".draft")
        draft.write_text(
            json.dumps({"server": self.server, "reason": self.reason, "log": str(self.log)})
        )
        draft.replace(path)

    @classmethod
    def read(cls, layout: Layout) -> "Failure":
        """Return what the keeper left, or that it left nothing (it was killed)."""
        try:
            told = json.loads(layout.failure.read_text())
        except FileNotFoundError:
            return cls("keeper", "it ended without a word, as if killed", layout.keeper_log)
        return cls(told["server"], told["reason"], Path(told["log"]))
