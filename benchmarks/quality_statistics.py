"""Intervals of 95% for shares of right answers, and for the difference of two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959964  # the normal distribution's 97.5th percentile
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval, all as shares of 1."""

    value: float
    low: float
    high: float


def share(right: Sequence[bool]) -> Estimate:
    """Return the share of right answers with Wilson's interval.

    Wilson, E. B. (1927), Probable inference, the law of succession, and statistical inference.
    """
    n, p = len(right), sum(right) / len(right)
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return Estimate(p, centre - half, centre + half)


def difference(
    first: Sequence[bool], second: Sequence[bool], groups: Sequence[str], seed: int = 0
) -> Estimate:
    """Return by how much the first's share is above the second's, on the same questions.

    The interval is a percentile bootstrap (Efron 1979). Each resample draws groups of questions,
    with both answers to each: what makes a question hard for both cancels out, and questions that
    stand or fall together count as one draw.
    """
    if not len(first) == len(second) == len(groups):
        raise ValueError(
            f"got {len(first)} and {len(second)} answers to {len(groups)} questions; give as many"
        )
    names = sorted(set(groups))
    places = np.array([names.index(group) for group in groups])
    apart = np.array(first, float) - np.array(second, float)
    sums = np.bincount(places, weights=apart)
    counts = np.bincount(places)
    drawn = np.random.default_rng(seed).integers(0, len(names), (_RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(apart.mean()), float(low), float(high))
