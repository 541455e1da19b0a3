"""The failure to learn something that only Redis knows."""

from market.errors import BargraphError


class RedisAway(BargraphError):
    """Redis did not answer: what was asked is unknown, and what was told may or may not be done."""

    code = "REDIS_AWAY"
