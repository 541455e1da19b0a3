"""With which keys Alpaca is asked, and where it answers."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

PAPER_KEYS = "PK"
"""How the ids of keys begin that belong to a paper account; they open all market data as well."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The server's own pair of keys. Neither is ever shown."""

    id: SecretStr
    secret: SecretStr

    @property
    def paper(self) -> bool:
        return self.id.get_secret_value().startswith(PAPER_KEYS)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where Alpaca is, each as a scheme and a host; None is its own address.

    *trading* lists symbols, *data* has the past, and *stream* pushes.
    """

    trading: str | None = None
    data: str | None = None
    stream: str | None = None
