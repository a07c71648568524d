"""The variance between training seeds, estimated over the comparisons that share a stage.

Two seeds give one degree of freedom: by itself, a comparison under two seeds has a critical value of up to 12.7
standard errors, and finds next to nothing. But a study has many comparisons of one kind, and the spread of its
training runs is of one kind, too. So each mean square between seeds is moderated towards what the others say, as
variances of genes are (Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3:3; limma's
squeezeVar). What is moderated is the ratio F to the mean square of the residual, whose expectation is 1 where seeds
do not differ, whatever the benchmark. log F has the variance trigamma(d / 2) by chance, d = seeds - 1; what it varies
beyond that is between comparisons, and gives the prior's degrees of freedom d0 (by their mean and variance, as Smyth
does).

Three departures make it safe for the handful of comparisons that a study has, where Smyth has thousands:
- Comparisons that share a training run are one cluster: their mean squares may be equal by that run alone. d0 is at
  most what the other clusters hold, (clusters - 1) d. One cluster has no prior, and falls back to its own d.
- A standard error of the variance of log F is added to it: a few logarithms agree by chance more often than by
  nature.
- The prior F is at least the mean F, and the moderated F at least the measured one: moderation takes nothing away
  from a benchmark whose seeds vary visibly more than the others'.

It speaks of the mean benchmark; on one whose seeds truly vary several times more than the others', tests reject
somewhat too often. `python bench/simulate.py` shows by how much.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import special

from selfrefine.analysis.statistics import Components

# Below this, F is a tie of the seeds' few possible means, and its logarithm says nothing.
LEAST_RATIO = 0.01


def moderated(of: Sequence[Components], runs: Sequence[Hashable]) -> list[Components]:
    """The components with moderated variances between seeds; `runs` names the training run behind each comparison."""
    told = [place for place, one in enumerate(of) if one.df and one.residual > 0]
    clusters = {cluster: [place for place in told if runs[place] == cluster] for cluster in {runs[p] for p in told}}
    if len(clusters) < 2:
        return list(of)
    sizes = np.array([len(clusters[runs[place]]) for place in told])
    weights = 1 / (len(clusters) * sizes)
    df = np.array([of[place].df for place in told])
    ratios = np.array([of[place].between_square / of[place].residual for place in told])
    prior_df, prior = _prior(ratios, df, weights, len(clusters))
    found = list(of)
    for place, ratio, own in zip(told, ratios, df, strict=True):
        pooled = max((prior_df * prior + own * ratio) / (prior_df + own), ratio)
        found[place] = _with_ratio(of[place], float(pooled), float(prior_df + own))
    return found


def _prior(ratios: np.ndarray, df: np.ndarray, weights: np.ndarray, clusters: int) -> tuple[float, float]:
    """(degrees of freedom, ratio) of the prior, from the logarithms of the ratios (Smyth 2004, section 6.2)."""
    logs = np.log(np.maximum(ratios, LEAST_RATIO)) - special.digamma(df / 2) + np.log(df / 2)
    by_chance = special.polygamma(1, df / 2)
    middle = weights @ logs
    # The fourth moment of log chi-squared is polygamma(3) + 3 trigamma^2: so much does a variance of its logs vary.
    error = math.sqrt(weights @ (special.polygamma(3, df / 2) + 2 * by_chance**2) / clusters)
    beyond = weights @ np.square(logs - middle) * clusters / (clusters - 1) - weights @ by_chance + error
    most = (clusters - 1) * float(weights @ df)
    mean = float(weights @ ratios)
    if beyond <= 0:
        return most, mean
    prior_df = 2 * _inverse_trigamma(beyond)
    prior = math.exp(middle + special.digamma(prior_df / 2) - math.log(prior_df / 2))
    return min(prior_df, most), max(prior, mean)


def _inverse_trigamma(value: float) -> float:
    """The argument whose trigamma is `value`, by Newton's method (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / special.polygamma(2, x)
        x += step
        if -step / x < 1e-10:
            break
    return float(x)


def _with_ratio(of: Components, ratio: float, df: float) -> Components:
    """The components with another mean square between seeds, as a ratio to the residual's."""
    square = ratio * of.residual
    between_seeds = max(square - of.residual, 0.0) / of.items
    variance = of.items * between_seeds + of.seeds * of.between_items + of.residual
    return of._replace(between_seeds=between_seeds, seed_share=min(square / variance, 1.0), seed_df=df)
