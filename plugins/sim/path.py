"""The price a simulated symbol has at any step, without walking there from the first one.

The logarithm of the price is a random walk built from tents: on every stretch of 2, 4, 8, ...
steps stands one of random height (Lévy's construction of Brownian motion). A step lies under one
tent of each width, so two dozen numbers give its price, and neighbours share the wide ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from market.bars import Floats, Ints
from plugins.sim.noise import exp2, key_of, normal, words

# The widest tent spans 2**23 steps, 16 years of minutes: the price comes home after each.
_LEVELS = 23
# Tents up to this width grow and shrink with the mood of the stretch of 2**10 steps they stand on.
_MOODY = 10
_LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class Path:
    """A price around *home* that moves by about *deviation* of itself in one step."""

    key: int
    home: float
    deviation: float

    def prices(self, steps: Ints) -> Floats:
        """Return the price at each of *steps*, none below 0."""
        wide, narrow = np.zeros(len(steps)), np.zeros(len(steps))
        for level in range(1, _LEVELS + 1):
            tents = words(key_of(self.key, level), steps >> level)
            width = 1 << level
            along = steps & (width - 1)
            height = np.minimum(along, width - along) * (2.0 / width)
            # A bridge over w steps deviates by sqrt(w) / 2 in its middle.
            risen = height * (0.5 * math.sqrt(width)) * normal(tents)
            if level > _MOODY:
                wide += risen
            else:
                narrow += risen
        moved = wide + narrow * self.moods(steps)
        return self.home * exp2(moved * (self.deviation * _LOG2_E))

    def moods(self, steps: Ints) -> Floats:
        """Return how lively each step's stretch is: 1 is usual, half and double are common."""
        return exp2(0.6 * normal(words(key_of(self.key, "mood"), steps >> _MOODY)))
