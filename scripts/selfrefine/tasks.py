"""A benchmark's test split as an lm-eval task that anyone can run, made from the sampler's prompts and extraction."""

import shutil
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from selfrefine import answers
from selfrefine.engines.weights import Answering
from selfrefine.files import whole_file, write_jsonl
from selfrefine.prompts import Prompt, messages

METRICS = (*answers.EXTRACTORS, "committed", "chain")


class TaskRecipe(BaseModel):
    """What the export of an lm-eval task reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    prompt: Prompt
    style: str = Field("cot", pattern="^(cot|plain)$", description="The prompt under which checkpoints are evaluated.")
    max_tokens: int = Field(256, gt=0)


class EvaluateRecipe(Answering):
    """What the evaluate stage reads beside the exported task."""

    task: str


def export_task(items: dict[str, dict], recipe: TaskRecipe, folder: Path) -> list[Path]:
    """Writes an lm-eval task: `{task}.yaml`, `docs.jsonl` (one item a line, with its prompt) and `answers.py`; returns the files.

    Anyone can run it: `lm_eval --include_path FOLDER --tasks TASK --apply_chat_template …` from anywhere.
    """
    documents = []
    for item in items.values():
        (message,) = messages(item, recipe.prompt, recipe.style)
        documents.append({**item, "prompt": message["content"]})
    write_jsonl(folder / "docs.jsonl", documents)
    shutil.copyfile(answers.__file__, folder / "answers.py")
    task = {
        "task": recipe.task,
        "custom_dataset": "DOCUMENTS",
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "process_results": "PROCESS_RESULTS",
        "generation_kwargs": {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": recipe.max_tokens},
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS],
        "metadata": {"version": 1.0},
    }
    text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
    path = folder / f"{recipe.task}.yaml"
    with whole_file(path) as file:
        file.write(
            text.replace("PROCESS_RESULTS", "!function answers.process_results").replace(
                "DOCUMENTS", "!function answers.documents"
            )
        )
    return [path, folder / "docs.jsonl", folder / "answers.py"]
