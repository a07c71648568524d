"""The difference between two arms at matched length of their answers: whether a gain is length alone.

Preference optimisation makes answers longer, and longer answers may be correct more often. What remains where both
arms answered an item at the same length is no gain of length. It is estimated from the pairs of answers to one item
whose longer one has at most `most` times the tokens of the shorter: the paired difference in correctness is regressed
on the logarithm of the ratio of lengths, and the intercept is the difference at equal length.

That is matching within a caliper with the bias of inexact matches corrected by regression (Abadie & Imbens 2011,
J. Bus. Econ. Stat. 29:1), or a local linear regression at 0 (Fan & Gijbels 1996). Length-controlled AlpacaEval (Dubois
et al. 2024, arXiv 2404.04475) asks for the same difference by a logistic regression over all pairs. Here far pairs
play no part, so only the form of the effect near equal length is assumed: linear in the logarithm.

What is estimated is a controlled direct effect (VanderWeele 2009, Epidemiology 20:18). It rests on two assumptions.
Within an item, what else makes an answer long does not make it correct: a student that rambles where it is lost would
break this. And the matched items stand for the others: how many they are stands beside the number.

Pairs of one item under several seeds are clustered (the sandwich of Liang & Zeger 1986, with the usual correction for
few clusters). With several seeds the variance between the seeds' own estimates is added, as far as it exceeds what the
items explain; degrees of freedom are Satterthwaite's.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from selfrefine.analysis import statistics
from selfrefine.schema.claim_results import ClaimComparison, MatchedLength

# Items without which nothing is said.
FEWEST = 20


class Fit(NamedTuple):
    """The intercept of one regression, its variance, and the items that it rests on."""

    difference: float
    variance: float
    items: int


def at_matched_length(
    correct: tuple[np.ndarray, np.ndarray], tokens: tuple[np.ndarray, np.ndarray], most: float, level: float
) -> MatchedLength | None:
    """The difference of treated and control at equal length, of arrays [seeds, items]; None of too few matches.

    An arm without seeds has one row, which counts under each seed of the other.
    """
    treated, control, longer, shorter = np.broadcast_arrays(*correct, *tokens)
    known = (longer > 0) & (shorter > 0)
    ratios = np.log(np.where(known, longer, 1) / np.where(known, shorter, 1))
    matched = known & (np.abs(ratios) <= math.log(most) + 1e-9)
    gaps = treated.astype(float) - control.astype(float)
    seeds, items = np.nonzero(matched)
    found = intercept(gaps[matched], ratios[matched], items)
    if found.items < FEWEST:
        return None
    variance, df = found.variance, float(found.items - 1)
    own = [intercept(gaps[seed][kept], ratios[seed][kept], np.nonzero(kept)[0]) for seed, kept in enumerate(matched)]
    own = [one for one in own if one.items >= FEWEST]
    if len(own) > 1:
        spread = float(np.var([one.difference for one in own], ddof=1))
        between = max(spread - float(np.mean([one.variance for one in own])), 0.0) / len(own)
        parts = (between, len(own) - 1), (variance, found.items - 1)
        variance += between
        df = variance**2 / sum(part**2 / free for part, free in parts)
    error = math.sqrt(variance)
    reach = float(stats.t.ppf((1 + level) / 2, df)) * error
    return {
        "items": found.items,
        "pairs": int(matched.sum()),
        "of_pairs": int(matched.size),
        "tokens": float(longer[matched].mean()),
        "against_tokens": float(shorter[matched].mean()),
        "difference": found.difference,
        "low": found.difference - reach,
        "high": found.difference + reach,
        "p": float(2 * stats.t.sf(abs(found.difference) / error, df)),
        "seeds": max(len(own), 1),
    }


def intercept(gaps: np.ndarray, ratios: np.ndarray, items: np.ndarray) -> Fit:
    """Least squares of gaps on ratios at ratio 0, with the variance clustered by item; the mean where ratios are alike."""
    clusters = len(np.unique(items))
    if clusters < 2:
        return Fit(float(gaps.mean()) if len(gaps) else 0.0, math.inf, clusters)
    design = np.stack([np.ones_like(ratios), ratios], axis=1)
    if np.ptp(ratios) < 1e-9:
        design = design[:, :1]
    bread = np.linalg.inv(design.T @ design)
    fitted = bread @ design.T @ gaps
    scores = design * (gaps - design @ fitted)[:, None]
    sums = np.zeros((int(items.max()) + 1, design.shape[1]))
    np.add.at(sums, items, scores)
    count, columns = design.shape
    few = clusters / (clusters - 1) * (count - 1) / max(count - columns, 1)
    variance = float((bread @ sums.T @ sums @ bread)[0, 0]) * few
    # Not even items that are all alike are known for certain: as if half of one more were answered differently.
    return Fit(float(fitted[0]), max(variance, 0.5 / (clusters * (clusters + 1))), clusters)


def judge(rows: Sequence[ClaimComparison], alpha: float) -> None:
    """Adds the corrected p and the verdict to the differences of one claim; p is scaled where a look has less to spend."""
    known = [(row, found) for row in rows if (found := row.get("matched_length"))]
    scaled = [min(1.0, found["p"] * alpha / row["alpha"]) if row["alpha"] else 1.0 for row, found in known]
    for (_, found), p in zip(known, statistics.holm(scaled), strict=True):
        found["corrected_p"] = p
        found["verdict"] = "undecided" if p > alpha else "supported" if found["difference"] > 0 else "contradicted"


def verdict(row: ClaimComparison) -> str:
    """A comparison's verdict at matched length; not tested where the arms have too few answers of close length."""
    found = row.get("matched_length")
    return found["verdict"] if found else "not tested"
