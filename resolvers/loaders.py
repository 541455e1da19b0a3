"""Batch what one GraphQL request asks for, so that a watchlist costs as much as a chart."""

from __future__ import annotations

from collections.abc import Mapping

from strawberry.dataloader import DataLoader

from datasources.found import Answer, Request
from datasources.recent import RecentAnswers
from market.errors import BargraphError

_MOST_AT_ONCE = 500


def candle_loader(
    answers: RecentAnswers, failed: Mapping[Request, BargraphError]
) -> DataLoader[Request, Answer]:
    """Return a loader for one GraphQL request; equal requests in it are answered once.

    What has *failed* on the way to it fails without being asked again.
    """

    async def load(requests: list[Request]) -> list[Answer | BaseException]:
        left = [request for request in requests if request not in failed]
        known = {**failed, **dict(zip(left, await answers.answer(left), strict=True))}
        return [known[request] for request in requests]

    return DataLoader(load_fn=load, max_batch_size=_MOST_AT_ONCE)
