"""Exports a benchmark's test split as an lm-eval task that anyone can run."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from selfrefine.answers import extraction
from selfrefine.data.prompts import messages
from selfrefine.schema.rows import Document, Item
from selfrefine.schema.stages import ExportTaskSettings
from selfrefine.store.files import whole_file, write_jsonl

# What lm-eval calls the filter that keeps all answers to an item.
ALL = "all"
METRICS = (*extraction.EXTRACTORS, "committed", "chain")


def export_task(
    items: dict[str, Item], settings: ExportTaskSettings, folder: Path, shots: Sequence[Item] = ()
) -> list[Path]:
    """Writes an lm-eval task, with the prompts and the extraction of the other stages; returns its files.

    `{task}.yaml`, `docs.jsonl` (one item a line, with its prompt) and `answers.py`. It runs from any folder:
    `lm_eval --include_path FOLDER --tasks TASK --apply_chat_template …`.
    """
    documents: list[Document] = []
    for item in items.values():
        (message,) = messages(item, settings.prompt, settings.style, shots=shots)
        document = cast(Document, {**item, "prompt": message["content"]})
        if settings.answer_phrases != list(extraction.DEFAULT):
            document["phrases"] = settings.answer_phrases
        if settings.extractor is not None:
            document["extractor"] = settings.extractor
        documents.append(document)
    write_jsonl(folder / "docs.jsonl", documents)
    shutil.copyfile(extraction.__file__, folder / "answers.py")
    metrics = METRICS if settings.extractor is None else (*METRICS, settings.extractor)
    task = {
        "task": settings.task,
        "custom_dataset": "DOCUMENTS",
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "process_results": "PROCESS_RESULTS",
        "generation_kwargs": {
            "until": settings.stop,
            "do_sample": settings.temperature > 0,
            "temperature": settings.temperature,
            **({"top_p": settings.top_p} if settings.temperature else {}),
            "max_gen_toks": settings.max_tokens,
        },
        **_repeated(settings.samples),
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics],
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


def _repeated(samples: int) -> dict[str, Any]:
    """The keys of a task under which each item is answered several times, and all answers are judged."""
    if samples == 1:
        return {}
    keep_all = {"function": "take_first_k", "k": samples}
    return {"repeats": samples, "filter_list": [{"name": ALL, "filter": [keep_all]}]}
