"""The real quickstart, cut down to a few items: real weights, real data, the shipped recording."""

import pandas as pd
import pytest
import yaml

from conftest import REPOSITORY, artifact, run
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
    accuracy = pd.read_csv(tmp_path / "results/quickstart/tables/accuracy.csv", keep_default_na=False)
    assert {(row.arm, row.evaluation): row.n for row in accuracy.itertuples()} == {
        (arm, task): n
        for arm in ("baseline", "instruct", "refine", "teacher")
        for task, n in (("asdiv", 6), ("csqa", 5), ("gsm_symbolic", 3))
    }
    demonstrations = artifact(tmp_path, "demonstrate/qwen2.5-coder-1.5b/asdiv") / "demonstrations.jsonl"
    for row in read_jsonl(demonstrations):
        assert row["text"].rstrip().endswith((".", "!", ")", "$")) or row["text"][-1].isdigit(), row
    instructed = "smollm2-135m/qwen2.5-coder-1.5b-asdiv-100-seed0"
    sampled = read_jsonl(artifact(tmp_path, f"sample/{instructed}/asdiv-100-seed0") / "paths.jsonl")
    assert sampled and all("<|im_end|>" not in row["text"] for row in sampled)
    assert read_jsonl(artifact(tmp_path, f"instruct/{instructed}") / "training.jsonl")[0]["loss"] < 2
