"""What the training data came to, by the stages' own counts, and what each artifact cost."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selfrefine.analysis import pass_at_k, solving, statistics
from selfrefine.analysis.accuracy_tables import FACTS, provenance_of
from selfrefine.analysis.jobs import gpu_use, tokens_of
from selfrefine.analysis.unchanged import COLUMN, made_no_update
from selfrefine.schema.results import EvaluatedCell
from selfrefine.store.files import read_jsonl

# Of each file of paths or pairs, who was sampled for it.
Origins = Mapping[str, Mapping[str, str]]


def demonstrations_table(files: Sequence[str]) -> pd.DataFrame:
    """demonstrations.csv: what became of the teachers' answers."""
    rows = []
    for path in files:
        counts = provenance_of(path)["figures"]["demonstrations"]
        known = {"demonstrations": path, "answers": counts["answers"], "kept": counts["kept"]}
        rows.append({**known, **counts["dropped"]})
    return frame(rows, "demonstrations").fillna(0)


def paths_table(files: Sequence[str], origins: Origins) -> pd.DataFrame:
    """paths.csv: how the students' sampled paths came out, by style."""
    rows = []
    for path in files:
        for style, counts in provenance_of(path)["figures"]["paths"].items():
            paths = [row for row in read_jsonl(Path(path)) if row["style"] == style]
            items = {"items": len({row["item"] for row in paths})}
            items["items_solved"] = len({row["item"] for row in paths if row["correct"]})
            rows.append({"sampled": path, **origins[path], "style": style, **items, **counts})
    return frame(rows, "sampled")


def pairs_table(files: Sequence[str], origins: Origins, level: float) -> pd.DataFrame:
    """pairs.csv: which items gave preference pairs, why others did not, and whether the pairs were too few.

    `lost_to_length`: the pairs that a recipe's `length_ratio` cost; 0 for recipes without one.
    """
    rows = []
    for path in files:
        counts = dict(provenance_of(path)["figures"]["pairs"])
        dropped = {f"dropped_{reason}": number for reason, number in counts.pop("dropped").items()}
        low, high = statistics.wilson(counts["items_with_pairs"], counts["items"], level)
        share = {"yield": counts["items_with_pairs"] / counts["items"], "low": low, "high": high}
        # As the refine stage decides it: it learns from training pairs, and selects by held-out ones.
        lacking = {COLUMN: int(counts["train"] == 0 or counts["validation"] == 0)}
        rows.append({"sampled": path, **origins[path], **dropped, **counts, **lacking, **share})
    # Reasons and losses that only some recipes know.
    table = frame(rows, "sampled")
    counted = [name for name in table if name.startswith("dropped_") or name == "lost_to_length"]
    return table.assign(**{name: table[name].fillna(0).astype(int) for name in counted})


def solving_table(files: Sequence[str], origins: Origins, level: float) -> pd.DataFrame:
    """solving.csv: pass@k and maj@k of the answers sampled from the same arm, over its seeds."""
    seeds: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for path in files:
        known = tuple((name, value) for name, value in origins[path].items() if name != "seed")
        seeds.setdefault(known, []).append(path)
    tables = []
    for facts, paths in seeds.items():
        table = solving.summarised([read_jsonl(Path(path)) for path in paths], level)
        for place, (name, value) in enumerate(facts):
            table.insert(place, name, value)
        tables.append(table.assign(level=level, sampled=" ".join(paths)))
    return pd.concat(tables, ignore_index=True) if tables else frame([], "sampled")


def pass_table(cells: Sequence[EvaluatedCell], extractor: str, level: float) -> pd.DataFrame:
    """pass_at_k.csv: pass@k and maj@k of the answers sampled to a test split, per arm over its seeds."""
    arms: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        known = tuple(str(cell.get(name, "")) for name in (*FACTS, "evaluation"))
        arms.setdefault(known, []).append(cell["samples"])
    tables = []
    for facts, files in arms.items():
        seeds = [pass_at_k.of_answers(read_jsonl(Path(path)), extractor) for path in dict.fromkeys(files)]
        if not all(seeds):
            continue
        table = solving.summarised(seeds, level, solving.interval_of_answers).drop(columns="style")
        for place, (name, value) in enumerate(zip((*FACTS, "evaluation"), facts, strict=True)):
            table.insert(place, name, value)
        tables.append(table.assign(level=level, samples=" ".join(dict.fromkeys(files))))
    return pd.concat(tables, ignore_index=True) if tables else frame([], "samples")


def stages_table(artifacts: Sequence[str], cells: Sequence[EvaluatedCell]) -> pd.DataFrame:
    """stages.csv: what each artifact cost."""
    rows = []
    for path in itertools.chain(artifacts, (cell["samples"] for cell in cells)):
        record = provenance_of(path)
        figures, tokens = record["figures"], tokens_of(record)
        rows.append(
            {"stage": record["stage"], "artifact": path, "wall_seconds": record["wall_seconds"], "tokens": tokens}
            | {
                "tokens_per_second": figures.get("tokens_per_second", np.nan),
                "peak_memory_mib": record["peak_memory_mib"],
                **gpu_use(record)._asdict(),
                COLUMN: int(made_no_update(record)),
            }
        )
    return pd.DataFrame(rows)


def frame(rows: Sequence[Mapping[str, Any]], key: str) -> pd.DataFrame:
    """Rows as a table that has at least the column `key`, so that a file of it can be read though there are no rows."""
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[key])
