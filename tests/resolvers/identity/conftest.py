"""An identity over a real database of accounts."""

from collections.abc import AsyncIterator

import pytest

from db.accounts.accounts import Accounts
from tests.accounts import Stage, staged


@pytest.fixture
async def stage(accounts: Accounts) -> AsyncIterator[Stage]:
    async with staged(accounts) as stage:
        yield stage
