"""The real quickstart, cut down to a few items: real weights, real data, the shipped recording."""

import pandas as pd
import pytest
import yaml

from conftest import REPOSITORY, run
from selfrefine.files import read_jsonl

CUT = {
    "study": {"recipes": ["answer"]},
    "benchmarks": {
        "asdiv": {"splits": {"train": {"size": 16}, "test": {"size": 6}}},
        "csqa": {"splits": {"train": {"size": 5}, "test": {"size": 5}}},
        "gsm_symbolic": {"splits": {"test": {"size": 3}}},
    },
    "sampling": {"cot": 1, "plain": 2, "generation": {"max_tokens": 32}},
    "validation": 0.3,
    "instruct": {"epochs": 1, "batch_size": 4, "micro_batch_size": 4},
    "refine": {"epochs": 1, "batch_size": 4, "micro_batch_size": 4, "evaluate_every": 1},
    "evaluation": {"max_tokens": 32},
}


@pytest.mark.quickstart
@pytest.mark.model
def test_the_quickstart_runs_on_real_weights_and_data(tmp_path):
    for name in ("Snakefile", "rules", "scripts", "report", "envs", "profiles", "config"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    cut = tmp_path / "cut.yaml"
    cut.write_text(yaml.safe_dump(CUT))
    run("snakemake", "--configfile", "config/config.yaml", "cut.yaml", cwd=tmp_path)
    accuracy = pd.read_csv(tmp_path / "results/tables/accuracy.csv", keep_default_na=False)
    assert {(row.arm, row.evaluation): row.n for row in accuracy.itertuples()} == {
        (arm, task): n
        for arm in ("baseline", "instruct", "refine", "teacher")
        for task, n in (("asdiv", 6), ("csqa", 5), ("gsm_symbolic", 3))
    }
    for row in read_jsonl(tmp_path / "results/demonstrations/qwen2.5-coder-1.5b/asdiv.jsonl"):
        assert row["text"].rstrip().endswith((".", "!", ")", "$")) or row["text"][-1].isdigit(), row
    for path in tmp_path.glob("results/paths/**/0.jsonl"):
        assert all("<|im_end|>" not in row["text"] for row in read_jsonl(path))
    (training,) = tmp_path.glob("results/checkpoints/smollm2-135m/instruct/*/asdiv/100/0/training.jsonl")
    assert read_jsonl(training)[0]["loss"] < 2
