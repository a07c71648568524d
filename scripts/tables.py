"""Turns judged answers and the stages' provenance into the study's tables (CSV).

accuracy.csv        one row per checkpoint and evaluation task, with n, correct and Wilson's interval
arms.csv            the same over seeds, with an interval over seeds and items
comparisons.csv     each trained arm against the one it started from, paired by item, per seed
lengths.csv         tokens of an answer per arm and evaluation task, and how many more than before the training
demonstrations.csv  the teachers' answers: kept, dropped and why
paths.csv           the students' sampled paths by style: correct, with an answer extracted, chains of thought, cut
solving.csv         pass@k and maj@k of the sampled paths, over seeds
pass_at_k.csv       pass@k and maj@k of several answers to each test item, over seeds
pairs.csv           yield of the preference recipes, and why items were dropped
refinements.csv     held-out pairs at the update whose weights each refinement kept
stages.csv          wall time, peak memory and tokens per second of each stage
costs.csv           wall time and tokens of one checkpoint of each arm and share, by stage, from teacher to evaluation

The column `unrefined` counts the checkpoints behind a row that had too few pairs to be refined.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from selfrefine.analysis import accuracy_tables, gains, unrefined, yield_tables
from selfrefine.analysis.costs import costs_table
from selfrefine.analysis.lengths import lengths_table
from selfrefine.analysis.refinements import refinements_table
from selfrefine.programs import cli
from selfrefine.schema.results import SELECT
from selfrefine.schema.stages import TablesSettings
from selfrefine.store.files import whole_file
from selfrefine.store.locations import TABLES, table_file

STAGES = ("chosen", "answers", "parts", "demonstrations", "training", "paths", "pairs")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, TablesSettings)
    cli.add_index(parser, "tables")
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    index = cli.read_index(args.index)
    samples = [cell["samples"] for cell in index["cells"]]
    inputs = [args.index, *map(Path, [*samples, *index["paths"], *index["records"]])]
    with cli.begin(__file__, args, inputs) as run:
        if not run.made:
            tables = make_tables(args.settings, index)
            files = [table_file(run.folder, name) for name in TABLES]
            for name, path in zip(TABLES, files, strict=True):
                table = tables[name]
                if SELECT in table and (table[SELECT].fillna("") == "").all():
                    table = table.drop(columns=SELECT)
                with whole_file(path) as file:
                    table.to_csv(file, index=False, float_format="%.6g")
            run.record(files)


def make_tables(settings: TablesSettings, index: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Every table, by name."""
    level, origins = settings.level, index["origins"]
    answers = accuracy_tables.read_answers(index["cells"], settings.extractor)
    made = {**index, "training": index["training"].values()}
    artifacts = [path for stage in STAGES for path in made.get(stage, ())]
    tables = {
        "accuracy": accuracy_tables.accuracy_table(answers, level),
        "arms": accuracy_tables.arms_table(answers, level),
        "comparisons": gains.comparisons_table(answers, level, index["training"]),
        "lengths": lengths_table(answers, accuracy_tables.FACTS, accuracy_tables.start_of, level),
        "demonstrations": yield_tables.demonstrations_table(index["demonstrations"]),
        "paths": yield_tables.paths_table(index["paths"], origins),
        "solving": yield_tables.solving_table(index["paths"], origins, level),
        "pass_at_k": yield_tables.pass_table(index["cells"], settings.extractor, level),
        "pairs": yield_tables.pairs_table(index["pairs"], origins, level),
        "refinements": refinements_table(list(made["training"]), origins, level),
        "stages": yield_tables.stages_table(artifacts, index["cells"]),
        "costs": costs_table(index["cells"], index["records"]),
    }
    unrefined.mark(tables, index["cells"], unrefined.unrefined_samples(index["cells"], index["training"]))
    return tables


if __name__ == "__main__":
    cli.run(main)
