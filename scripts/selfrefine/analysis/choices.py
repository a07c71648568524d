"""Which other choices a study's own data allow for: extractors, benchmarks, seeds, statistics."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from selfrefine.analysis.comparing import CHECKPOINTS, Policy
from selfrefine.analysis.flip_kinds import CONFIGURED
from selfrefine.schema.results import EvaluatedCell

LEVELS = (0.90, 0.95, 0.99)
# Subsets of seeds that are all judged; of more, those that leave one out, single ones, and so many others.
ALL_SUBSETS, FURTHER = 30, 20
# Of the draw of these others.
SEED = 20240501


class Choice(NamedTuple):
    """One way to judge the claims: which cells count, and how. `possible`: False where there is nothing to choose."""

    axis: str
    name: str
    cells: Sequence[EvaluatedCell]
    extractor: str
    policy: Policy
    counted: bool  # whether refinements count that had too few pairs
    corrected: bool = True  # whether p are corrected by Holm
    runs: bool = True  # whether verdicts are on new training runs, where there are several seeds
    subset: int = 0  # of fewer seeds, how many
    possible: bool = True


class Known(NamedTuple):
    """What the study's data say beside its cells."""

    extractors: Sequence[str]
    style: str
    styled: Mapping[str, Mapping[str, str]]
    """By prompt style, other answers of the teachers: by the file that counts, the file of that style."""
    engines: Mapping[str, str]
    """By file of judged answers, what generated them; teachers' are not among them."""
    unrefined: bool
    """Whether some refinement had too few pairs."""
    lacking: Sequence[str]
    """Extractors whose package is not installed."""


def choices_of(configured: Choice, known: Known) -> list[Choice]:
    """The choice as configured, then all others, axis by axis; an axis without any says so."""
    return [
        configured,
        *_extractors(configured, known),
        *_styles(configured, known),
        *_engines(configured, known),
        *_benchmarks(configured),
        *_seeds(configured),
        *_statistics(configured, known),
    ]


def configured_choice(cells: Sequence[EvaluatedCell], extractor: str, policy: Policy, counted: bool) -> Choice:
    """The study as it is configured."""
    return Choice(CONFIGURED, "", cells, extractor, policy, counted)


def seeds_of(cells: Sequence[EvaluatedCell]) -> list[int | str]:
    """The training seeds of a study."""
    return sorted({cell["seed"] for cell in cells} - {""})


def _none(configured: Choice, axis: str, text: str) -> Choice:
    return configured._replace(axis=axis, name=text, possible=False)


def _extractors(configured: Choice, known: Known) -> Iterator[Choice]:
    for extractor in known.extractors:
        if extractor != configured.extractor:
            yield configured._replace(axis="extractor", name=extractor, extractor=extractor)
    for extractor in known.lacking:
        yield _none(configured, "extractor", f"{extractor} is not installed")


def _styles(configured: Choice, known: Known) -> Iterator[Choice]:
    yield _none(configured, "prompt style", f"students: one style only, {known.style}")
    for style, files in known.styled.items():
        cells: list[EvaluatedCell] = [
            {**cell, "samples": files.get(cell["samples"], cell["samples"])} for cell in configured.cells
        ]
        yield configured._replace(axis="prompt style", name=f"teachers: {style}", cells=cells)


def _engines(configured: Choice, known: Known) -> Iterator[Choice]:
    engines = sorted({*known.engines.values()})
    if len(engines) < 2:
        yield _none(configured, "engine", f"one engine only, {engines[0]}" if engines else "one engine only")
        return
    for engine in engines:
        cells = [cell for cell in configured.cells if known.engines.get(cell["samples"], engine) == engine]
        yield configured._replace(axis="engine", name=f"{engine} alone", cells=cells)


def _benchmarks(configured: Choice) -> Iterator[Choice]:
    benchmarks = list(dict.fromkeys(cell["evaluation"] for cell in configured.cells))
    if len(benchmarks) < 2:
        yield _none(configured, "benchmark", "one benchmark only")
        return
    # Of two, leaving one out is taking the other alone.
    for name in benchmarks if len(benchmarks) > 2 else ():
        cells = [cell for cell in configured.cells if cell["evaluation"] != name]
        yield configured._replace(axis="benchmark", name=f"without {name}", cells=cells)
    for name in benchmarks:
        cells = [cell for cell in configured.cells if cell["evaluation"] == name]
        yield configured._replace(axis="benchmark", name=f"only {name}", cells=cells)


def _seeds(configured: Choice) -> Iterator[Choice]:
    seeds = seeds_of(configured.cells)
    if len(seeds) < 2:
        yield _none(configured, "seeds", "one seed only")
    for subset in subsets_of(seeds):
        cells = [cell for cell in configured.cells if cell["seed"] in ("", *subset)]
        policy = policy_of_fewer(configured.policy, len(seeds))
        named = _named(subset, seeds)
        yield configured._replace(axis="seeds", name=named, cells=cells, policy=policy, subset=len(subset))


def subsets_of(seeds: Sequence[int | str]) -> list[tuple[int | str, ...]]:
    """The subsets of seeds that are judged: all of few seeds, of more a sample, the larger ones first."""
    sizes = range(len(seeds) - 1, 0, -1)
    if 2 ** len(seeds) - 2 <= ALL_SUBSETS:
        return [subset for size in sizes for subset in itertools.combinations(seeds, size)]
    generator = np.random.default_rng([SEED, len(seeds)])
    drawn: dict[tuple[int | str, ...], None] = {}
    while len(drawn) < FURTHER:
        size = int(generator.integers(2, len(seeds) - 1))
        places = sorted(generator.choice(len(seeds), size, replace=False).tolist())
        drawn[tuple(seeds[place] for place in places)] = None
    ends = [subset for size in (len(seeds) - 1, 1) for subset in itertools.combinations(seeds, size)]
    return sorted([*ends, *drawn], key=lambda subset: -len(subset))


def policy_of_fewer(policy: Policy, seeds: int) -> Policy:
    """The policy that judges a subset of so many seeds: at their level, so that nothing but the seeds is another."""
    alpha = policy.alpha(seeds)
    return Policy(1 - alpha, policy.margin) if alpha else policy


def _named(subset: Sequence[int | str], seeds: Sequence[int | str]) -> str:
    if len(subset) == 1:
        return f"seed {subset[0]} alone"
    left_out = [str(seed) for seed in seeds if seed not in subset]
    if len(left_out) <= len(subset):
        return f"without seed{'s' if len(left_out) > 1 else ''} {', '.join(left_out)}"
    return f"seeds {', '.join(map(str, subset))} alone"


def _statistics(configured: Choice, known: Known) -> Iterator[Choice]:
    policy = configured.policy
    for level in LEVELS:
        if abs(level - policy.level) > 1e-9:
            yield configured._replace(axis="level", name=f"{100 * level:g} %", policy=policy._replace(level=level))
    for factor in (0.5, 2):
        if (margin := factor * policy.margin) < 1:
            yield configured._replace(
                axis="margin", name=f"{100 * margin:g} points", policy=policy._replace(margin=margin)
            )
    if len(seeds_of(configured.cells)) < 2:
        yield _none(configured, "population", f"one seed: {CHECKPOINTS} only")
    else:
        yield configured._replace(axis="population", name=f"{CHECKPOINTS} only", runs=False)
    yield configured._replace(axis="correction", name="without Holm's", corrected=False)
    if known.unrefined:
        named = "left out without pairs" if configured.counted else "counted without pairs"
        yield configured._replace(axis="refinements", name=named, counted=not configured.counted)
    else:
        yield _none(configured, "refinements", "all had pairs")
