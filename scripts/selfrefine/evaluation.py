"""Evaluation with lm-eval: an exported task (selfrefine/tasks.py), and an engine as lm-eval's model."""

import json
import sys
from pathlib import Path

from lm_eval.api.model import LM

from selfrefine import answers
from selfrefine.engines import Completion, Engine, Generation, Request, complete
from selfrefine.tasks import METRICS


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

    # The task's `answers.py` is loaded from among the results, where nothing lies that no record names.
    sys.dont_write_bytecode = True
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
