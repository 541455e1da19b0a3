"""A lane of jobs as taskiq sees it: what it sends through, and where it gets deliveries from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import ConfigDict
from redis.exceptions import RedisError
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq.receiver import Receiver

from web.jobs.delivery import Delivery
from web.jobs.lane import Lane

log = logging.getLogger(__name__)

_AWAY_PAUSE = 1.0


class Delivered(AckableMessage):
    """A message for taskiq together with the delivery it came by."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    delivery: Delivery


class LaneBroker(AsyncBroker):
    """Sends to and listens on one lane. Nothing is acknowledged here: the lane ends deliveries."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self._lane = lane

    async def kick(self, message: BrokerMessage) -> None:
        key = message.labels.get("key")
        await self._lane.put(message.message, id=message.task_id, task=message.task_name, key=key)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield what is delivered, for ever; while Redis is away nothing is."""
        away = False
        while True:
            try:
                delivery = await self._lane.take()
            except (RedisError, OSError) as error:
                if not away:
                    log.warning("Jobs wait for Redis: %s", type(error).__name__)
                away = True
                await asyncio.sleep(_AWAY_PAUSE)
                continue
            if away:
                log.info("Jobs go on: Redis is back")
                away = False
            if delivery is not None:
                yield Delivered(data=delivery.taken.message, ack=_nothing, delivery=delivery)


class LaneReceiver(Receiver):
    """taskiq's receiver, which runs every delivery inside its lane."""

    def __init__(self, broker: LaneBroker, lane: Lane, **options: Any) -> None:
        super().__init__(broker, **options)
        self._lane = lane

    async def callback(self, message: bytes | AckableMessage, raise_err: bool = False) -> None:
        assert isinstance(message, Delivered)
        await self._lane.carry_out(message.delivery, super().callback(message, raise_err))


def _nothing() -> None:
    """Acknowledge nothing; see `LaneBroker`."""
