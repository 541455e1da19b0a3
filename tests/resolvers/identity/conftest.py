"""An identity over a real database of accounts."""

from collections.abc import AsyncIterator, Iterator

import pytest

from db.accounts.accounts import Accounts
from tests.accounts import Stage, staged
from tests.conftest import migrated_accounts


@pytest.fixture(scope="session", params=["mariadb", "embedded"])
def accounts_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """One server of each kind: what could differ between PostgreSQLs is below."""
    with migrated_accounts(request.param, request) as url:
        yield url


@pytest.fixture
async def stage(accounts: Accounts) -> AsyncIterator[Stage]:
    async with staged(accounts) as stage:
        yield stage
