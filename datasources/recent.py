"""Give many who ask the same within a moment the same answer, computed once.

An answer is given again while it is younger than a forming bar may be, by the provider's time and
by ours: then a revision made by another process is seen as late as a new price, and no later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from datasources.chain import Chain
from datasources.found import Answer, Request
from market.errors import BargraphError
from market.lru import LRU
from plugins.registry import Registry

Batch = dict[Request, Answer | BargraphError]


class RecentAnswers:
    """Answers of the chain by request, at most *max_bars* bars of them. Times are in ms."""

    def __init__(
        self, chain: Chain, registry: Registry, *, forming_ttl: int, max_bars: int = 300_000
    ) -> None:
        self._chain = chain
        self._registry = registry
        self._forming_ttl = forming_ttl
        self._held: LRU[Request, tuple[Answer, float]] = LRU(
            max_count=max_bars, max_weight=max_bars
        )
        self._under_way: dict[Request, asyncio.Task[Batch]] = {}

    def held(self, request: Request) -> Answer | None:
        """Return the answer to *request* if it is still young enough."""
        held = self._held.get(request)
        if held is None:
            return None
        answer, at = held
        now = self._registry.get(request.series.listing.provider).clock.now()
        age = (asyncio.get_running_loop().time() - at) * 1000
        if age < self._forming_ttl and 0 <= now - answer.as_of < self._forming_ttl:
            return answer
        self._held.pop(request)
        return None

    async def answer(self, requests: Sequence[Request]) -> list[Answer | BargraphError]:
        """Return the answer to each request, or the failure that left it without any bar."""
        found: Batch = {}
        waiting: dict[Request, asyncio.Task[Batch]] = {}
        new: list[Request] = []
        for request in dict.fromkeys(requests):
            if (answer := self.held(request)) is not None:
                found[request] = answer
            elif (task := self._under_way.get(request)) is not None:
                waiting[request] = task
            else:
                new.append(request)
        if new:
            task = asyncio.create_task(self._ask(new), name=f"{len(new)} requests for bars")
            waiting.update(dict.fromkeys(new, task))
            self._under_way.update(dict.fromkeys(new, task))
        for request, task in waiting.items():
            # Whoever leaves early does not take the answer from the others.
            found[request] = (await asyncio.shield(task))[request]
        return [found[request] for request in requests]

    async def aclose(self) -> None:
        """Cancel what is under way and wait for it."""
        tasks = set(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, requests: list[Request]) -> Batch:
        try:
            answers = dict(zip(requests, await self._chain.answer(requests), strict=True))
        finally:
            for request in requests:
                self._under_way.pop(request, None)
        for request, answer in answers.items():
            if isinstance(answer, Answer):
                at = asyncio.get_running_loop().time()
                self._held.put(request, (answer, at), weight=_weight(answer))
        return answers


def _weight(answer: Answer) -> int:
    return len(answer.bars) + len(answer.gaps) + 50
