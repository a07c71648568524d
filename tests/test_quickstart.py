"""The study in .test, the quickstart with a few items: real weights, real data, the shipped recording."""

import pandas as pd
import pytest

from conftest import artifact, run
from selfrefine.store.files import read_jsonl


@pytest.mark.quickstart
@pytest.mark.model
def test_the_test_study_runs_on_real_weights_and_data(tmp_path):
    run("snakemake", "--directory", tmp_path, "--configfile", ".test/config/config.yaml")
    accuracy = pd.read_csv(tmp_path / "results/test/tables/accuracy.csv", keep_default_na=False)
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
