"""How each provider has been answering, for people to see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from market.clock import Clock


class HealthState(StrEnum):
    """What the last call to a provider came to."""

    UNTRIED = "untried"
    OK = "ok"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Health:
    """Times in ms since the epoch, UTC, by the server's clock; None: not yet."""

    state: HealthState = HealthState.UNTRIED
    answered_at: int | None = None
    failed_at: int | None = None
    reason: str | None = None


class HealthBoard:
    """The health of every provider this process has called."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._health: dict[str, Health] = {}

    def of(self, provider: str) -> Health:
        return self._health.get(provider, Health())

    def answered(self, provider: str) -> None:
        before = self.of(provider)
        self._health[provider] = Health(HealthState.OK, self._clock.now(), before.failed_at)

    def failed(self, provider: str, reason: str) -> None:
        before = self.of(provider)
        self._health[provider] = Health(
            HealthState.FAILING, before.answered_at, self._clock.now(), reason
        )
