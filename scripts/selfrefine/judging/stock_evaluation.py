"""Evaluates a checkpoint on one of lm-eval's own tasks, with the data that fetch_task.py fetched."""

import json
import random
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager

from selfrefine.data.stock_tasks import find_task
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.likelihoods import Pair, likelihoods
from selfrefine.engines.token_engine import TokenEngine
from selfrefine.errors import UserError
from selfrefine.judging.stock_documents import chosen, document_id, document_of, options_of
from selfrefine.schema.generation import Generation, Thinking
from selfrefine.schema.rows import EvaluatedAnswer, StockDocument
from selfrefine.schema.stages import EvaluateSettings, StockAsked
from selfrefine.store.locations import OWN_TASKS, SPLITS, split_of_data

# lm-eval's defaults: the tokens of a completion where a task names no limit, and the seeds of what tasks draw.
MOST_TOKENS, SEED, FEWSHOT_SEED = 256, 0, 1234
REPORTED = ("results", "versions", "n-shot", "higher_is_better", "n-samples")


class StockModel(TemplateLM):
    """A checkpoint's engine as lm-eval's model: it generates as the study does, and scores continuations."""

    def __init__(self, engine: TokenEngine, output: Path, thinking: Thinking = "keep"):
        super().__init__()
        self.thinking: Thinking = thinking
        self.engine = engine
        self.output = output
        self.tokenizer = engine.tokenizer
        self.completions: dict[int, list[Completion]] = {}

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: the beginning of a text, as lm-eval's `hf` model has it."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as text, with the model's own template."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None:
            return self.engine.encode_text(string)
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return ids

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        pairs = [Pair(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        return [(one.logprob, one.is_greedy) for one in likelihoods(self.engine, pairs, self.output)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Not offered: a perplexity is no verdict on an answer."""
        raise UserError("lm-eval tasks that measure perplexity have no correct answers; name another task")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The answers to lm-eval's requests, in their order."""
        wanted = []
        for number, request in enumerate(requests):
            prompt, given = request.args
            settings = normalize_gen_kwargs(given, MOST_TOKENS)
            generation = Generation(
                max_tokens=settings["max_gen_toks"],
                temperature=settings.get("temperature", 0.0) if settings.get("do_sample") else 0.0,
                top_p=settings.get("top_p", 1.0),
            )
            stop = tuple(text for text in settings["until"] if text)
            chat = [{"role": "user", "content": prompt}]
            wanted.append(Request(f"{number:06d}", chat, generation, number, stop, True, self.thinking))  # type: ignore[arg-type] # a Message
        found = complete(self.engine, wanted, self.output, "evaluate")
        for request, one in zip(requests, wanted, strict=True):
            self.completions.setdefault(request.doc_id, []).append(found[one.id])
        return [found[request.id].text for request in wanted]


def load_task(name: str, include: Path | None, **overrides: Any) -> Any:
    """One of lm-eval's tasks, loaded."""
    # lm-eval imports a task's functions from its folder, which may be among the results.
    sys.dont_write_bytecode = True
    manager = TaskManager(include_path=str(find_task(name, include).path.parent), include_defaults=False)
    # What `load` does for a name; it has no way to change a registered task's keys.
    return manager._factory.build(manager._index[name], overrides=overrides, registry=manager._index)


def fetched_task(folder: Path, name: str, scratch: Path, **overrides: Any) -> Any:
    """One of lm-eval's tasks, loaded, with its data and file as fetch_task.py left them in a folder."""
    from datasets import Dataset
    from pyarrow import parquet

    data = {split_of_data(path): Dataset(parquet.read_table(path)) for path in sorted(folder.glob(SPLITS))}
    include = None
    if (folder / OWN_TASKS).exists():
        zipfile.ZipFile(folder / OWN_TASKS).extractall(scratch)
        include = scratch
    return load_task(name, include, custom_dataset=lambda **_: data, **overrides)


def evaluate_stock(
    folder: Path, settings: EvaluateSettings, asked: StockAsked, engine: TokenEngine, output: Path
) -> tuple[dict[str, Any], list[StockDocument], list[EvaluatedAnswer]]:
    """lm-eval's report, the documents and the judged answers, by id; `folder` holds what fetch_task.py fetched."""
    name, system = settings.task, settings.system
    random.seed(SEED)
    np.random.seed(FEWSHOT_SEED)
    with tempfile.TemporaryDirectory(prefix="selfrefine-tasks-") as scratch:
        task = fetched_task(
            folder, name, Path(scratch), **({} if asked.shots is None else {"num_fewshot": asked.shots})
        )
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    model = StockModel(engine, output, settings.thinking)
    results = lm_eval.evaluate(
        model,
        {"tasks": {name: task}, "groups": {}, "group_map": {}},
        limit=asked.limit,
        log_samples=True,
        bootstrap_iters=1,
        apply_chat_template=asked.chat,
        system_instruction=system if asked.chat else None,
    )
    samples = sorted(_of_filter(name, results.pop("samples")[name], asked.filter), key=document_id)
    report = {key: results[key] for key in REPORTED if key in results}
    documents = [document_of(task, sample) for sample in samples]
    rows = [_row(name, sample, asked, model, options_of(task, sample)) for sample in samples]
    return json.loads(json.dumps(report, default=str)), documents, rows


def _of_filter(name: str, samples: list[dict[str, Any]], wanted: str | None) -> list[dict[str, Any]]:
    """The samples under one of a task's filters, the first one unless it is named."""
    known = list(dict.fromkeys(sample["filter"] for sample in samples))
    if wanted is not None and wanted not in known:
        raise UserError(f"lm_eval.tasks.{name}.filter: there is no {wanted!r}; the task has {', '.join(known)}")
    return [sample for sample in samples if sample["filter"] == (wanted or known[0])]


def _row(
    name: str, sample: dict[str, Any], asked: StockAsked, model: StockModel, options: list[str]
) -> EvaluatedAnswer:
    """What is kept of one of lm-eval's samples."""
    metric = asked.metric or sample["metrics"][0]
    if metric not in sample["metrics"]:
        raise UserError(
            f"lm_eval.tasks.{name}.metric: there is no {metric!r}; the task has {', '.join(sample['metrics'])}"
        )
    try:
        value = float(sample[metric])
    except (TypeError, ValueError):
        value = float("nan")
    if value not in (0.0, 1.0):
        raise UserError(
            f"lm_eval.tasks.{name}.metric: {metric!r} of document {sample['doc_id']} is {sample[metric]!r}, not 0 or "
            f"1, so no answer is correct or incorrect; name another of {', '.join(sample['metrics'])}"
        )
    made = model.completions.get(sample["doc_id"], [])
    scores = [] if made else [response[0][0] for response in sample["resps"]]
    filtered = sample["filtered_resps"]
    extracted = str(filtered[0]) if made and filtered[0] not in (None, "[invalid]") else None
    if options:
        extracted = str(chosen(metric, scores, options))
    return {
        "id": document_id(sample),
        "doc_id": sample["doc_id"],
        "target": str(sample["target"]),
        "text": made[0].text if made else json.dumps(scores),
        "extracted": extracted,
        "strict": value,
        "unanimous": value,
        "legacy": value,
        "committed": float(not made or extracted is not None),
        "chain": 0.0,
        "finish_reason": made[0].finish_reason if made else "stop",
        "tokens": made[0].tokens if made else 0,
        "prompt_tokens": made[0].prompt_tokens if made else 0,
    }
