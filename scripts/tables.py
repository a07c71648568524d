"""Turns judged answers and the stages' provenance into the study's tables (CSV).

accuracy.csv        one row per checkpoint and evaluation task, with n, correct and Wilson's interval
arms.csv            the same over seeds, with an interval over seeds and items
comparisons.csv     each trained arm against the one it started from, paired by item, per seed
lengths.csv         tokens of an answer per arm and evaluation task, and how many more than before the training
demonstrations.csv  the teachers' answers: kept, dropped and why
paths.csv           the students' sampled answers by style: right, committed, chains of thought, cut
solving.csv         pass@k and maj@k of the sampled answers, over seeds
pairs.csv           yield of the preference recipes, and why items were dropped
stages.csv          wall time, peak memory and tokens per second of each stage
costs.csv           wall time and tokens of one checkpoint of each arm and share, by stage, from the teacher to its evaluation
"""

import argparse
import functools
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from selfrefine import cli, solving, statistics
from selfrefine.costs import costs_table
from selfrefine.errors import UserError
from selfrefine.files import read_json, read_jsonl, whole_file
from selfrefine.jobs import tokens_of
from selfrefine.lengths import lengths_table
from selfrefine.provenance import environment_differences, record_of

STAGES = ("answers", "demonstrations", "training", "paths", "pairs")
FACTS = ["arm", "student", "teacher", "family", "task", "refine_task", "recipe", "share"]


class TablesRecipe(BaseModel):
    """What the tables stage reads: the intervals' level, and the extractor that decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float
    extractor: str


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, TablesRecipe)
    cli.add_index(parser, "tables")
    cli.add_record(parser)
    return parser.parse_args()


def read_answers(cells: list[dict], extractor: str) -> pd.DataFrame:
    """One row per cell and item: the cell's facts, the item's id, and what is known of the answer."""
    frames = []
    for cell in cells:
        rows = read_jsonl(cell["samples"])
        teacher = cell["arm"] == "teacher"
        frame = pd.DataFrame(
            {
                "item": [row["item"] if teacher else row["id"] for row in rows],
                "correct": [bool(row[extractor]) for row in rows],
                "legacy": [bool(row["legacy"]) for row in rows],
                "committed": [row["extracted"] is not None for row in rows],
                "chain": [bool(row["chain"]) for row in rows],
                "cut": [row["finish_reason"] == "length" for row in rows],
                "tokens": [row["tokens"] for row in rows],
            }
        )
        frames.append(frame.assign(**cell))
    return pd.concat(frames, ignore_index=True)


def accuracy_table(answers: pd.DataFrame, level: float) -> pd.DataFrame:
    """accuracy.csv: per checkpoint and evaluation task."""
    rows = []
    for facts, group in answers.groupby(
        [*FACTS, "seed", "evaluation", "checkpoint", "samples"], sort=False, dropna=False
    ):
        n, correct = len(group), int(group.correct.sum())
        low, high = statistics.wilson(correct, n, level)
        *facts, checkpoint, samples = facts
        rows.append(
            dict(zip([*FACTS, "seed", "evaluation"], facts, strict=True))
            | {"n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high}
            | {
                "legacy_accuracy": group.legacy.mean(),
                "committed": group.committed.mean(),
                "chains": group.chain.mean(),
                "cut": group.cut.mean(),
            }
            | {"mean_tokens": group.tokens.mean(), "checkpoint": checkpoint, "samples": samples}
        )
    return pd.DataFrame(rows)


def outcomes(group: pd.DataFrame) -> pd.DataFrame:
    """bool[seeds, items] of one arm on one task; every seed must have every item."""
    matrix = group.pivot(index="seed", columns="item", values="correct")
    if matrix.isna().any(axis=None):
        raise UserError(f"{group.samples.iloc[0]}: other items than in the arm's other seeds; evaluate again")
    return matrix.astype(bool)


def arms_table(answers: pd.DataFrame, level: float) -> pd.DataFrame:
    """arms.csv: per arm and evaluation task, over seeds."""
    rows = []
    for facts, group in answers.groupby([*FACTS, "evaluation"], sort=False, dropna=False):
        matrix = outcomes(group).to_numpy()
        estimate, low, high, method = statistics.accuracy(matrix, level)
        rows.append(
            dict(zip([*FACTS, "evaluation"], facts, strict=True))
            | {
                "seeds": matrix.shape[0],
                "n": matrix.shape[1],
                "accuracy": estimate,
                "low": low,
                "high": high,
                "level": level,
                "interval": method,
                "samples": " ".join(dict.fromkeys(group.samples)),
            }
        )
    return pd.DataFrame(rows)


def comparisons_table(answers: pd.DataFrame, level: float, training: dict[str, str]) -> pd.DataFrame:
    """comparisons.csv: each trained checkpoint against the arm it started from, on the same items.

    `training`: the log of each checkpoint's training.
    """
    groups = {key: group for key, group in answers.groupby(["checkpoint", "evaluation"], sort=False) if key[0]}
    rows = []
    for (checkpoint, evaluation), group in groups.items():
        start = start_of(checkpoint, group.student.iloc[0])
        control = groups.get((start, evaluation))
        if start is None or control is None:
            continue
        treated_right = group.set_index("item").correct
        control_right = control.set_index("item").correct.reindex(treated_right.index)
        if control_right.isna().any():
            raise UserError(f"{group.samples.iloc[0]}: other items than {control.samples.iloc[0]}; evaluate both again")
        a, b = treated_right.to_numpy(bool), control_right.to_numpy(bool)
        estimate, low, high = statistics.difference(a[None], b[None], level)
        gained, lost, p = statistics.mcnemar(a, b)
        rows.append(
            {name: group[name].iloc[0] for name in [*FACTS, "seed"]}
            | {
                "against": control.arm.iloc[0],
                "evaluation": evaluation,
                "n": len(a),
                "difference": estimate,
                "low": low,
                "high": high,
            }
            | {"gained": gained, "lost": lost, "mcnemar_p": p}
            | {
                "differs": differing(
                    training.get(checkpoint), training.get(start), group.samples.iloc[0], control.samples.iloc[0]
                )
            }
            | {"samples": f"{group.samples.iloc[0]} {control.samples.iloc[0]}"}
        )
    columns = [*FACTS, "seed", "against", "evaluation", "n", "difference", "low", "high", "gained", "lost", "mcnemar_p"]
    columns += ["differs", "samples"]
    return pd.DataFrame(rows, columns=columns)


def start_of(checkpoint: str, student: str) -> str | None:
    """The checkpoint that one was trained from; None for a base model."""
    if "/refine/" in checkpoint:
        return checkpoint.split("/refine/", 1)[0]
    return f"{student}/base" if "/instruct/" in checkpoint else None


def differing(trained: str | None, start: str | None, samples: str, against: str) -> str:
    """Versions and hardware that differ between two arms: of their evaluations, and of the trainings behind them (their logs)."""
    pairs = [(provenance_of(samples), provenance_of(against))]
    if trained and start:
        pairs.append((provenance_of(trained), provenance_of(start)))
    return "; ".join(dict.fromkeys(text for pair in pairs for text in environment_differences(*pair)))


@functools.cache
def provenance_of(path: str) -> dict:
    """The record beside an artifact."""
    return read_json(record_of(path))


def yield_tables(index: dict, level: float) -> dict[str, pd.DataFrame]:
    """demonstrations.csv, paths.csv and pairs.csv from the stages' own counts."""
    demonstrations, paths, pairs = [], [], []
    for path in index["demonstrations"]:
        counts = provenance_of(path)["figures"]["demonstrations"]
        demonstrations.append(
            {"demonstrations": path, "answers": counts["answers"], "kept": counts["kept"], **counts["dropped"]}
        )
    for path in index["paths"]:
        for style, counts in provenance_of(path)["figures"]["paths"].items():
            rows = [row for row in read_jsonl(path) if row["style"] == style]
            solved = len({row["item"] for row in rows if row["correct"]})
            paths.append(
                {
                    "sampled": path,
                    **index["origins"][path],
                    "style": style,
                    "items": len({row["item"] for row in rows}),
                    "items_solved": solved,
                    **counts,
                }
            )
    for path in index["pairs"]:
        counts = dict(provenance_of(path)["figures"]["pairs"])
        low, high = statistics.wilson(counts["items_with_pairs"], counts["items"], level)
        pairs.append(
            {
                "sampled": path,
                **index["origins"][path],
                **{f"dropped_{k}": v for k, v in counts.pop("dropped").items()},
                **counts,
                "yield": counts["items_with_pairs"] / counts["items"],
                "low": low,
                "high": high,
            }
        )
    return {
        "demonstrations": frame(demonstrations, "demonstrations").fillna(0),
        "paths": frame(paths, "sampled"),
        "pairs": frame(pairs, "sampled"),
    }


def frame(rows: list[dict], key: str) -> pd.DataFrame:
    """Rows as a table that has at least the column `key`, so that a file of it can be read though there are no rows."""
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[key])


def solving_table(index: dict, level: float) -> pd.DataFrame:
    """solving.csv: pass@k and maj@k of the answers sampled from the same arm, over its seeds."""
    seeds: dict[tuple, list[str]] = {}
    for path in index["paths"]:
        facts = {name: value for name, value in index["origins"][path].items() if name != "seed"}
        seeds.setdefault(tuple(facts.items()), []).append(path)
    tables = []
    for facts, paths in seeds.items():
        table = solving.summarised([read_jsonl(path) for path in paths], level)
        for place, (name, value) in enumerate(facts):
            table.insert(place, name, value)
        tables.append(table.assign(level=level, sampled=" ".join(paths)))
    return pd.concat(tables, ignore_index=True) if tables else frame([], "sampled")


def stages_table(index: dict) -> pd.DataFrame:
    """stages.csv: what each artifact cost."""
    artifacts = [path for stage in STAGES for path in (index[stage].values() if stage == "training" else index[stage])]
    rows = []
    for path in itertools.chain(artifacts, (cell["samples"] for cell in index["cells"])):
        record = provenance_of(path)
        figures, tokens = record["figures"], tokens_of(record)
        rows.append(
            {"stage": record["stage"], "artifact": path, "wall_seconds": record["wall_seconds"], "tokens": tokens}
            | {
                "tokens_per_second": figures.get("tokens_per_second", np.nan),
                "peak_memory_mib": record["peak_memory_mib"],
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    args = arguments()
    index = cli.read_index(args.index)
    samples = [cell["samples"] for cell in index["cells"]]
    inputs = [args.index, *map(Path, [*samples, *index["paths"], *index["records"]])]
    with cli.begin(__file__, args, inputs) as run:
        if not run.made:
            run.record(write_tables(args.recipe, index, run.folder))


def write_tables(recipe: TablesRecipe, index: dict, folder: Path) -> list[Path]:
    """Writes every table; their files."""
    answers = read_answers(index["cells"], recipe.extractor)
    tables = {
        "accuracy": accuracy_table(answers, recipe.level),
        "arms": arms_table(answers, recipe.level),
        "comparisons": comparisons_table(answers, recipe.level, index["training"]),
        "lengths": lengths_table(answers, FACTS, start_of, recipe.level),
        **yield_tables(index, recipe.level),
        "solving": solving_table(index, recipe.level),
        "stages": stages_table(index),
        "costs": costs_table(index["cells"], index["records"]),
    }
    for name, table in tables.items():
        with whole_file(folder / f"{name}.csv") as file:
            table.to_csv(file, index=False, float_format="%.6g")
    return [folder / f"{name}.csv" for name in tables]


if __name__ == "__main__":
    cli.run(main)
