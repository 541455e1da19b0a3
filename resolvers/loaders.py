"""Batch what one GraphQL request asks for, so that a watchlist costs as much as a chart."""

from __future__ import annotations

from strawberry.dataloader import DataLoader

from datasources.found import Answer, Request
from datasources.recent import RecentAnswers

_MOST_AT_ONCE = 500


def candle_loader(answers: RecentAnswers) -> DataLoader[Request, Answer]:
    """Return a loader for one GraphQL request; equal requests in it are answered once."""

    async def load(requests: list[Request]) -> list[Answer | BaseException]:
        return [*await answers.answer(requests)]

    return DataLoader(load_fn=load, max_batch_size=_MOST_AT_ONCE)
