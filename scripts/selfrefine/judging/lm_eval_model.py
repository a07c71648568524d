"""An engine as lm-eval's model, and lm-eval run with it on an exported task (lm_eval_task.py)."""

import collections
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from selfrefine.answers import extraction
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Completion, Engine, Request, seed_for
from selfrefine.schema.generation import Generation, Thinking
from selfrefine.schema.rows import EvaluatedAnswer, Message


class EngineModel(LM):
    """An engine as lm-eval's model: requests have the ids of their documents, and the journal lies beside `output`."""

    def __init__(self, engine: Engine, output: Path, system: str | None, thinking: Thinking = "keep"):
        super().__init__()
        self.engine = engine
        self.output = output
        self.system = system
        self.thinking = thinking
        self.completions: dict[str, Completion] = {}

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The answers to lm-eval's requests, in their order."""
        wanted = []
        asked: collections.Counter[str] = collections.Counter()
        for request in requests:
            prompt, settings = request.args
            item, sample = request.doc["id"], asked[request.doc["id"]]
            asked[item] += 1
            chat: list[Message] = [{"role": "user", "content": prompt}]
            if self.system is not None:
                chat = [{"role": "system", "content": self.system}, *chat]
            generation = Generation(
                max_tokens=settings["max_gen_toks"],
                temperature=settings["temperature"],
                top_p=settings.get("top_p", 1.0),
            )
            # A single answer has its item's id; further ones are numbered.
            name = item if request.repeats == 1 else f"{item}-{sample}"
            seed = seed_for(item, 0, "evaluate", sample) if generation.temperature else 0
            stop = tuple(settings["until"])
            wanted.append(Request(name, chat, generation, seed, stop, thinking=self.thinking))
        self.completions = complete(self.engine, wanted, self.output, "evaluate")
        return [self.completions[request.id].text for request in wanted]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Not offered: the study's tasks have generated answers."""
        raise TypeError("this model only generates; log-likelihood tasks need lm-eval's own models")

    loglikelihood_rolling = loglikelihood


def run_lm_eval(model: EngineModel, task: str, folder: Path) -> tuple[dict[str, Any], list[EvaluatedAnswer]]:
    """lm-eval's report (its own schema, without what changes from run to run) and the judged answers, by id."""
    # lm-eval imports the task's `answers.py` from among the results, where only files that a record names belong.
    sys.dont_write_bytecode = True
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    # Not `simple_evaluate`: it would list the machine's packages and drivers in every job, for fields that are dropped
    # here. For our metrics, all of them means, lm-eval has the standard error in closed form as soon as resampling is
    # allowed.
    results = lm_eval.evaluate(model, manager.load([task]), log_samples=True, bootstrap_iters=1)
    samples = results.pop("samples")[task]
    kept = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
    report = {key: results[key] for key in kept if key in results}
    answers = [row for sample in samples for row in _answers(sample, model.completions)]
    return json.loads(json.dumps(report, default=str)), sorted(answers, key=lambda row: row["id"])


def _answers(sample: dict[str, Any], completions: dict[str, Completion]) -> list[EvaluatedAnswer]:
    """The judged answers to one item."""
    document = sample["doc"]
    if document["id"] in completions:
        return [_answer(sample, completions[document["id"]], sample)]
    rows: list[EvaluatedAnswer] = []
    for number in range(len(sample["filtered_resps"][0])):
        completion = completions[f"{document['id']}-{number}"]
        row = _answer(sample, completion, extraction.process_results(document, [completion.text]))
        votes = extraction.extract(completion.text, document["kind"], document["choices"], "legacy")
        own: dict[str, Any] = {
            "id": f"{document['id']}-{number}",
            "item": document["id"],
            "sample": number,
            "legacy_extracted": votes,
        }
        rows.append(cast(EvaluatedAnswer, row | own))
    return rows


def _answer(sample: dict[str, Any], completion: Completion, scores: Mapping[str, float]) -> EvaluatedAnswer:
    row = _row(sample, completion, scores)
    if extraction.MATH_VERIFY in scores:
        row["math-verify"] = scores[extraction.MATH_VERIFY]
        row["math-verify_extracted"] = extraction.read_by_math_verify(completion.text)
    return row


def _row(sample: dict[str, Any], completion: Completion, scores: Mapping[str, float]) -> EvaluatedAnswer:
    document = sample["doc"]
    phrases = document.get("phrases") or extraction.DEFAULT
    return {
        "id": document["id"],
        "doc_id": sample["doc_id"],
        # Not lm-eval's own target: of a text such as "[1, 2]" it makes a list.
        "target": document["answer"],
        "text": completion.text,
        "extracted": extraction.extract(completion.text, document["kind"], document["choices"], phrases=phrases),
        "strict": scores["strict"],
        "unanimous": scores["unanimous"],
        "legacy": scores["legacy"],
        "committed": scores["committed"],
        "chain": scores["chain"],
        "finish_reason": completion.finish_reason,
        "tokens": completion.tokens,
        "prompt_tokens": completion.prompt_tokens,
    }
