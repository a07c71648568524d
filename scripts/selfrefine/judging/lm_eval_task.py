"""Exports a benchmark's test split as an lm-eval task that anyone can run."""

import shutil
from pathlib import Path

import yaml

from selfrefine.answers import extraction
from selfrefine.data.prompts import messages
from selfrefine.schema.rows import Document, Item
from selfrefine.schema.stages import ExportTaskSettings
from selfrefine.store.files import whole_file, write_jsonl

METRICS = (*extraction.EXTRACTORS, "committed", "chain")


def export_task(items: dict[str, Item], settings: ExportTaskSettings, folder: Path) -> list[Path]:
    """Writes an lm-eval task, with the prompts and the extraction of the other stages; returns its files.

    `{task}.yaml`, `docs.jsonl` (one item a line, with its prompt) and `answers.py`. It runs from any folder:
    `lm_eval --include_path FOLDER --tasks TASK --apply_chat_template …`.
    """
    documents: list[Document] = []
    for item in items.values():
        (message,) = messages(item, settings.prompt, settings.style)
        documents.append({**item, "prompt": message["content"]})
    write_jsonl(folder / "docs.jsonl", documents)
    shutil.copyfile(extraction.__file__, folder / "answers.py")
    task = {
        "task": settings.task,
        "custom_dataset": "DOCUMENTS",
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "process_results": "PROCESS_RESULTS",
        "generation_kwargs": {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": settings.max_tokens},
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS],
        "metadata": {"version": 1.0},
    }
    text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
    path = folder / f"{settings.task}.yaml"
    with whole_file(path) as file:
        file.write(
            text.replace("PROCESS_RESULTS", "!function answers.process_results").replace(
                "DOCUMENTS", "!function answers.documents"
            )
        )
    return [path, folder / "docs.jsonl", folder / "answers.py"]
