"""A simulated market: a pure function of seed, symbol and time that looks like a real one."""

from plugins.sim.provider import SimProvider

__all__ = ["SimProvider"]
