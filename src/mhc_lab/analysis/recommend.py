"""From measured gains to a t_max, with what the number rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import bdtr

from mhc_lab.analysis.measures import QUANTILE

CONFIDENCE = 0.95


def upper_bound(values: Any, q: float = QUANTILE, confidence: float = CONFIDENCE) -> float | None:
    """An upper confidence bound of the q-quantile from a sample; None where the sample is too small for one.

    The k-th smallest of N lies above the quantile with probability P(Binomial(N, q) < k), whatever the distribution
    (order statistics; Conover, Practical Nonparametric Statistics, section 3.2). At q = .999 it takes N >= 2,995.
    """
    sample = np.sort(np.asarray(values, dtype=np.float64).ravel())
    count = len(sample)
    for k in range(max(int(q * count), 1), count + 1):
        if bdtr(k - 1, count, q) >= confidence:
            return float(sample[k - 1])
    return None


def smallest(values: Mapping[int, float | None], bound: float) -> int | None:
    """The smallest t from which on every value stays <= bound; None if the last one does not, or is missing."""
    found = None
    for t in sorted(values, reverse=True):
        value = values[t]
        if value is None or not value <= bound:  # NaN is no promise
            break
        found = t
    return found


def recommendation(
    worst: Mapping[int, float],
    upper: Mapping[int, float | None],
    layers: Sequence[Mapping[int, float]],
    bound: float,
) -> dict[str, Any]:
    """What t_max one algorithm in one precision needs.

    Args:
        worst: t -> 99.9 % quantile over tokens of the composite gain, the larger of forward and backward.
        upper: t -> its upper 95 % confidence bound, None where there is none.
        layers: of each layer, t -> the same quantile of the layer's own gain.
        bound: what the composite gain shall not exceed.

    Returns:
        t_max (None: no measured t is enough), t_max_upper (by the confidence bound), gain at t_max (or at the last
        t), layer_bound = bound^(1/L), layer_t_max (by layer, None: no measured t) and `demanding`, the layers whose
        own gain stays <= layer_bound only from a larger t on than t_max.
    """
    layer_bound = math.exp(math.log(bound) / len(layers))
    t_max = smallest(worst, bound)
    own = [smallest(layer, layer_bound) for layer in layers]
    limit = max(worst) if t_max is None else t_max
    return {
        "t_max": t_max,
        "t_max_upper": smallest(upper, bound),
        "gain": worst[limit],
        "layer_bound": layer_bound,
        "layer_t_max": own,
        "demanding": [index for index, t in enumerate(own) if t is None or t > limit],
    }
