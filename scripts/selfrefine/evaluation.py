"""Evaluation with lm-eval: a task per benchmark, made from the sampler's prompts and extraction, and an engine as its model."""

import json
import shutil
from pathlib import Path

import yaml
from lm_eval.api.model import LM
from pydantic import BaseModel, ConfigDict, Field

from selfrefine import answers
from selfrefine.engines import Completion, Engine, Generation, Request, complete
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


def export_task(items: dict[str, dict], recipe: TaskRecipe, folder: Path) -> None:
    """Writes an lm-eval task: `{task}.yaml`, `docs.jsonl` (one item a line, with its prompt) and `answers.py`.

    Anyone can run it: `lm_eval --include_path FOLDER --tasks TASK --apply_chat_template …` from the repository's root.
    """
    documents = []
    for item in items.values():
        (message,) = messages(item, recipe.prompt, recipe.style)
        documents.append({**item, "prompt": message["content"]})
    write_jsonl(folder / "docs.jsonl", documents)
    shutil.copyfile(answers.__file__, folder / "answers.py")
    task = {
        "task": recipe.task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}},
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
    with whole_file(folder / f"{recipe.task}.yaml") as file:
        file.write(text.replace("PROCESS_RESULTS", "!function answers.process_results"))


class EngineModel(LM):
    """An engine as lm-eval's model: requests keep the ids of their documents, and the journal lies beside `output`."""

    def __init__(self, engine: Engine, output: Path, system: str | None):
        super().__init__()
        self.engine = engine
        self.output = output
        self.system = system
        self.completions: dict[str, Completion] = {}

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The texts that answer the requests, in their order."""
        wanted = []
        for request in requests:
            prompt, settings = request.args
            chat = [{"role": "user", "content": prompt}]
            if self.system is not None:
                chat = [{"role": "system", "content": self.system}, *chat]
            generation = Generation(max_tokens=settings["max_gen_toks"], temperature=settings["temperature"])
            wanted.append(Request(id=request.doc["id"], messages=chat, generation=generation))
        self.completions = complete(self.engine, wanted, self.output, "evaluate")
        return [self.completions[request.id].text for request in wanted]

    def loglikelihood(self, requests):
        """Not offered: the study's tasks are generated answers."""
        raise TypeError("this model only generates; log-likelihood tasks need lm-eval's own models")

    loglikelihood_rolling = loglikelihood


def evaluate(model: EngineModel, task: str, folder: Path) -> tuple[dict, list[dict]]:
    """lm-eval's results (its own schema, less what changes from run to run) and its samples, one per document, by id."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    # Not `simple_evaluate`: it would list the machine's packages and drivers in every job, for fields that are dropped here.
    # Of the metrics here, all means, lm-eval gives the standard error in closed form as soon as resamples are allowed.
    results = lm_eval.evaluate(model, manager.load([task]), log_samples=True, bootstrap_iters=1)
    samples = results.pop("samples")[task]
    kept = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
    report = {key: results[key] for key in kept if key in results}
    rows = []
    for sample in samples:
        completion = model.completions[sample["doc"]["id"]]
        doc = sample["doc"]
        rows.append(
            {
                "id": doc["id"],
                "doc_id": sample["doc_id"],
                "target": sample["target"],
                "text": completion.text,
                "extracted": answers.extract(completion.text, doc["kind"], doc["choices"]),
                **{name: sample[name] for name in METRICS},
                "finish_reason": completion.finish_reason,
                "tokens": completion.tokens,
                "prompt_tokens": completion.prompt_tokens,
            }
        )
    return json.loads(json.dumps(report, default=str)), sorted(rows, key=lambda row: row["id"])
