"""The judged answers of a study by every extractor; each file is read once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfrefine.analysis import statistics
from selfrefine.analysis.comparing import Pairing, outlying
from selfrefine.analysis.correctness import correct_by_item, judged_rows
from selfrefine.analysis.unrefined import Kept
from selfrefine.errors import UserError
from selfrefine.schema.claim_results import OutlyingRun

# What tells the pairing of two arms: an extractor, and the files of both sides.
Key = tuple[str, tuple[Path, ...], tuple[Path, ...]]


class Outcomes(NamedTuple):
    """A file of judged answers: its items, sorted, and which are correct by each extractor."""

    items: tuple[str, ...]
    correct: Mapping[str, np.ndarray]


class KeptAnswers:
    """Pairings of arms by any extractor. `rejudged`: by file, further verdicts on its rows, as 1 and 0 by extractor."""

    def __init__(
        self,
        files: Iterable[Path],
        extractors: Sequence[str],
        rejudged: Mapping[Path, Mapping[str, str]],
    ):
        self._outcomes = {path: self._read(path, extractors, rejudged.get(path, {})) for path in files}
        self._pairings: dict[Key, Pairing] = {}
        self._outlying: dict[Key, list[OutlyingRun]] = {}

    @staticmethod
    def _read(path: Path, extractors: Sequence[str], rejudged: Mapping[str, str]) -> Outcomes:
        rows = judged_rows(path)
        for extractor, verdicts in rejudged.items():
            rows = [{**row, extractor: int(one)} for row, one in zip(rows, verdicts, strict=True)]
        found = {extractor: correct_by_item(rows, extractor, path) for extractor in extractors}
        items = tuple(sorted(found[extractors[0]]))
        return Outcomes(
            items, {extractor: np.array([by_item[item] for item in items]) for extractor, by_item in found.items()}
        )

    def pairing(self, both: Kept, extractor: str) -> Pairing:
        """The answers of two arms, paired by seed and item; as `comparing.paired`."""
        treated, control = both.treated.samples, both.control.samples
        key = self._key(both.treated.samples, both.control.samples, extractor)
        if key not in self._pairings:
            _, own, against = key
            items = self._outcomes[own[0]].items
            for path in (*own, *against):
                if self._outcomes[path].items != items:
                    raise UserError(f"{path}: other items than in {own[0]}; evaluate both again")
            correct, before = (
                np.stack([self._outcomes[path].correct[extractor] for path in side]) for side in (own, against)
            )
            seeds = sorted(control if "" in treated else treated)
            difference = statistics.paired(correct, before)
            self._pairings[key] = Pairing(both.treated, both.control, seeds, correct, before, difference)
        return self._pairings[key]._replace(
            treated=both.treated, control=both.control, unrefined=both.unrefined, left_out=both.left_out
        )

    def outlying(self, one: Pairing, extractor: str) -> list[OutlyingRun]:
        """The outlying training runs of a pairing."""
        key = self._key(one.treated.samples, one.control.samples, extractor)
        if key not in self._outlying:
            self._outlying[key] = outlying(one)
        return self._outlying[key]

    @staticmethod
    def _key(treated: Mapping[int | str, Path], control: Mapping[int | str, Path], extractor: str) -> Key:
        own, against = (tuple(side[seed] for seed in sorted(side)) for side in (treated, control))
        return extractor, own, against
