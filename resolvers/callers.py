"""Who asks: what the connection itself tells, and who they proved to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import SecretStr

from market.errors import BargraphError

if TYPE_CHECKING:
    from resolvers.identity.principal import Principal


class Forbidden(BargraphError):
    """What whoever asks may not do."""

    code = "FORBIDDEN"


class Caller(NamedTuple):
    """Whoever sent an operation. *local* says that it is at the machine the server runs on.

    *address* is the one that its requests are counted under, *agent* what its program calls itself,
    *request_id* our name for its request. *principal* is who it proved to be, None for nobody;
    *doubt* is what kept us from finding out, *shown* what is to be looked at again because of it.
    """

    local: bool
    address: str = ""
    agent: str | None = None
    request_id: str | None = None
    principal: Principal | None = None
    doubt: BargraphError | None = None
    shown: SecretStr | None = None


ANYBODY = Caller(local=False)
"""Someone of whom nothing is known: what they may do, all may."""
