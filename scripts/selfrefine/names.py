"""What the files of artifacts are called: of each stage that has one file that others read, this file."""

FILES = {
    "prepare": "items.jsonl",
    "teach": "answers.jsonl",
    "demonstrate": "demonstrations.jsonl",
    "sample": "paths.jsonl",
    "pair": "pairs.jsonl",
    "evaluate": "samples.jsonl",
    "read": "reading.html",
    "summarise": "summary.md",
    "claims": "claims.md",
}
# Of a checkpoint, losses by update; and where it is an adapter, not whole weights, the adapter's settings.
TRAINING = "training.jsonl"
ADAPTER = "adapter_config.json"
# Of an evaluation, lm-eval's own results.
REPORT = "report.json"
