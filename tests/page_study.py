"""A finished study made up for the page's tests: responses of any number and any content, tables computed from them."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

import tables
from selfrefine.analysis import choices, verdicts
from selfrefine.analysis.accuracy_tables import provenance_of
from selfrefine.analysis.comparing import Policy
from selfrefine.analysis.flips import Flips
from selfrefine.analysis.kept_answers import KeptAnswers
from selfrefine.analysis.unrefined import Unrefined, unrefined_samples
from selfrefine.report.model_names import Models
from selfrefine.report.page.model_titles import SPELLED
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.report.study_tables import StudyTables
from selfrefine.schema.assumptions import Costs
from selfrefine.schema.stages import TablesSettings

PRICES = Costs(currency="EUR", gpu_hour={"cloud": 2}, gpu_watts=400, host_watts=100, pue=1.5, grid=0.2)
TITLES = {"sums": "Sums & <more>", "letters": "Letters"}
FACTS = ("arm", "student", "teacher", "family", "task", "refine_task", "recipe", "share", "seed")
OF_ARM = {
    "baseline": ("baseline", "ant-135m", "", "", "", "", "", "", ""),
    "instruct": ("instruct", "ant-135m", "qwen2.5-1.5b", "out", "sums", "", "", 100, 0),
    "refine": ("refine", "ant-135m", "qwen2.5-1.5b", "out", "sums", "sums", "cot", 100, 0),
    "teacher": ("teacher", "", "qwen2.5-1.5b", "", "", "", "", "", ""),
}
SEEDED = ("instruct", "refine")
# The log of a refinement: a validation at its last update.
VALIDATED = {"step": 3, "split": "validation", "loss": 0.5, "accuracy": 0.75, "chosen_token_logp": -0.6}


def checkpoint_of(arm: str, seed: int) -> str:
    """The name of an arm's checkpoint."""
    instructed = f"ant-135m/instruct/qwen2.5-1.5b/sums/100/{seed}"
    refined = f"{instructed}/refine/sums/cot/100/{seed}"
    return {"baseline": "ant-135m/base", "instruct": instructed, "refine": refined, "teacher": ""}[arm]


PROMPT = {
    "instruction": "Answer from {labels}, please.",
    "cot": "Answer: Let's think step by step",
    "plain": "Answer:",
}
# Worked examples in the prompts of the benchmark of letters.
SHOTS = {
    "number": 1,
    "examples": [{"question": f"Which is {letter}?", "choices": ["a", "b"], "answer": letter} for letter in "AB"],
}
# What a model may say to break the page.
HOSTILE = [
    "<script>alert('run')</script> The answer is 3.",
    "</script><script>alert('out')</script>",
    "<img src=x onerror=alert('loaded')> & &amp; &lt;b&gt;",
    "<!-- <script> --> ]]> {{ 7 * 7 }} {% raw %}",
    "مرحبا بالعالم ‮reversed‬ שלום",
    "🧮 emoji 👩‍👩‍👧‍👦 and \u2028 line separators \x00 \x07",
    "half a pair: \ud83d",
    "x" * 10_000,
    "word " * 2_000,
    "",
    "$& $1 $` {answer} {labels}",
]
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="150"><rect width="300" height="150"/></svg>'


class PageStudy:
    """Writes a study's artifacts below the working directory, and hands them to the page.

    `unrefined`: the seeds whose refinement had no pairs, so that it left the student as it was.
    """

    def __init__(
        self,
        test: int = 40,
        train: int = 12,
        texts: list[str] | None = None,
        seeds: int = 1,
        unrefined: tuple[int, ...] = (),
    ):
        self.texts, self.unrefined = texts, unrefined
        # Another study of the same names may have been read in this process.
        provenance_of.cache_clear()
        self.records: list[str] = []
        sums = [self._item(number, "sums") for number in range(test)]
        letters = [self._item(number, "letters") for number in range(8)]
        training = [self._item(number + 10_000_000, "sums") for number in range(train)]
        self.index = {
            "tasks": {"sums": self._task("sums", sums), "letters": self._task("letters", letters)},
            "items": {"sums": self._artifact("prepare", ("sums-train",), "items.jsonl", training)},
            "cells": [
                self._cell(arm, task, items, seed)
                for arm in OF_ARM
                for seed in range(seeds if arm in SEEDED else 1)
                for task, items in (("sums", sums), ("letters", letters))
            ],
            "shots": {},
            "training": {},
            "origins": {},
            "answers": [self._answers(training)],
            "demonstrations": [],
            "paths": [],
            "pairs": [],
        }
        for seed in range(seeds):
            self._refine(training, seed)
            for arm in SEEDED:
                updates = 0 if arm == "refine" and seed in unrefined else 3
                rows = [VALIDATED] if arm == "refine" and updates else []
                figures = {"updates": updates, "kept_update": 3, "pairs": {"validation": 4}}
                log = self._artifact(arm, ("ant-135m", f"seed{seed}"), "training.jsonl", rows, figures=figures)
                self.index["training"][checkpoint_of(arm, seed)] = log
                if arm == "refine":
                    self.index["origins"][log] = self.index["origins"][self.index["pairs"][-1]]
        self.index["records"] = self.records

    def inputs(self, models: Models = SPELLED, count_unrefined: bool = False) -> PageInputs:
        """The study as the page reads it."""
        folder = Path("tables")
        folder.mkdir(exist_ok=True)
        for name, frame in tables.make_tables(TablesSettings(level=0.95, extractor="strict"), self.index).items():
            frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        Path("accuracy.svg").write_text(SVG)
        Path("record.json").write_text(json.dumps({"figures": {}}))
        student = models.students.get("ant-135m", "ant-135m")
        Path("cost.csv").write_text(
            f'student,arm,wall seconds,wall seconds low,wall seconds high\n"{student}",refine,5,4,6\n'
        )
        return PageInputs(
            index=self.index,
            tables=StudyTables(folder),
            claims=self.claims(count_unrefined, models.students),
            flips=self.flips(count_unrefined),
            level=0.95,
            margin=5.0,
            extractor="strict",
            titles=TITLES,
            models=models,
            counts_unrefined=count_unrefined,
            figures={"accuracy": Path("accuracy.svg"), "training": Path("accuracy.svg")},
            layouts={"cost": Path("cost.csv")},
            configuration=yaml.safe_dump({"study": {"name": "made-up"}}),
            sources=[{"role": "benchmark", "name": "sums", "source": "file:<x>", "licence": "MIT", "sha256": "0" * 64}],
        )

    def claims(self, count_unrefined: bool = False, students: Mapping[str, str] | None = None) -> list[dict]:
        """The verdicts on the paper's claims."""
        cells = self.index["cells"]
        unrefined = Unrefined.of(unrefined_samples(cells, self.index["training"]), count_unrefined)
        return verdicts.assess_all(cells, "strict", Policy(0.95, 0.05), TITLES, students or {}, unrefined)

    def flips(self, count_unrefined: bool = False) -> list[dict]:
        """The verdicts under other choices."""
        cells, extractors = self.index["cells"], ["strict", "unanimous", "legacy"]
        unrefined = frozenset(map(Path, unrefined_samples(cells, self.index["training"])))
        known = choices.Known(extractors, "cot", {}, {}, bool(unrefined), [])
        configured = choices.configured_choice(cells, "strict", Policy(0.95, 0.05), count_unrefined)
        answers = KeptAnswers([Path(cell["samples"]) for cell in cells], extractors, {})
        return Flips(choices.choices_of(configured, known), answers, unrefined).rows()

    @staticmethod
    def _item(number: int, task: str) -> dict:
        choices = [f"option {letter}" for letter in "abcdefghijkl"] if task == "letters" else []
        answer = "ABCDEFGHIJKL"[number % 12] if choices else str(number)
        kind = "choice" if choices else "math"
        question = f"{task} question {number}: how many?"
        return {"id": f"{number:016x}", "kind": kind, "question": question, "choices": choices, "answer": answer}

    def _response(self, number: int, arm: int, answer: str) -> dict:
        """What an arm says to an item: correct by a fixed pattern, three times in four if it is a teacher."""
        correct, found = (number * 7 + arm * 3) % 5 < arm + 1, (number + arm) % 9 != 0
        text = f"Step {number} of arm {arm}. The answer is {answer if correct else 'Z'}."
        if self.texts:
            text = self.texts[(number + arm) % len(self.texts)]
        return {
            "text": text,
            "extracted": (answer if correct else "Z") if found else None,
            "correct": correct and found,
            "strict": correct and found,
            "unanimous": correct,
            "legacy": correct,
            "chain": True,
            "finish_reason": "length" if number % 10 == 3 else "stop",
            "tokens": 5 + number % 90,
            "prompt_tokens": 30,
        }

    def _cell(self, arm: str, task: str, items: list[dict], seed: int) -> dict:
        number = [*OF_ARM].index("instruct" if arm == "refine" and seed in self.unrefined else arm)
        rows = []
        for item in items:
            response = self._response(int(item["id"], 16) + 2 * seed, number, item["answer"])
            own = {"item": item["id"], "id": f"{item['id']}-cot-0", "style": "cot", "sample": 0, "seed": None}
            rows.append({**response, **(own if arm == "teacher" else {"id": item["id"], "doc_id": len(rows)})})
        settings = {"system": "Be brief.", "prompt": PROMPT, "style": "cot", "request": "Finish with a number."}
        if arm == "teacher":
            file = self._artifact("teach", ("qwen2.5-1.5b", f"{task}-test-cot"), "answers.jsonl", rows, settings)
        else:
            settings = {"system": None if arm == "baseline" else ""}
            file = self._artifact("evaluate", (arm, f"seed{seed}", task), "samples.jsonl", rows, settings)
        facts = dict(zip(FACTS, OF_ARM[arm], strict=True))
        facts["seed"] = seed if arm in SEEDED else ""
        return {**facts, "checkpoint": checkpoint_of(arm, seed), "evaluation": task, "samples": file}

    def _task(self, task: str, items: list[dict]) -> str:
        prompt = PROMPT | ({"shots": SHOTS} if task == "letters" else {})
        settings = {"task": task, "prompt": prompt, "style": "cot", "max_tokens": 96}
        return self._artifact("export_task", (task,), "docs.jsonl", items, settings)

    def _answers(self, items: list[dict]) -> str:
        rows = [
            {**self._response(int(item["id"], 16), 3, item["answer"])}
            | {"id": f"{item['id']}-cot-0", "item": item["id"], "style": "cot", "sample": 0, "seed": None}
            for item in items
        ]
        settings = {"system": None, "prompt": PROMPT, "style": "cot", "request": ""}
        return self._artifact("teach", ("qwen2.5-1.5b", "sums-train-cot"), "answers.jsonl", rows, settings)

    def _refine(self, items: list[dict], seed: int) -> None:
        """Demonstrations, sampled paths and pairs."""
        answers = [json.loads(line) for line in Path(self.index["answers"][0]).read_text().splitlines()]
        kept = [row for row in answers if row["correct"]]
        counts = {
            "answers": len(answers),
            "kept": len(kept),
            "dropped": {"cut": 1, "wrong": len(answers) - len(kept) - 1},
        }
        names = ("qwen2.5-1.5b", "sums")
        if not seed:
            self.index["demonstrations"].append(
                self._artifact("demonstrate", names, "demonstrations.jsonl", kept, figures={"demonstrations": counts})
            )
        paths = []
        for place, item in enumerate(items):
            for style, samples in (("cot", 3), ("plain", 1), ("rationale", 1 if place % 4 == 0 else 0)):
                for sample in range(samples):
                    response = self._response(place + sample * 3, 1, item["answer"])
                    own = {"item": item["id"], "style": style, "sample": sample, "seed": sample}
                    paths.append({"id": f"{item['id']}-{style}-{sample}", **own, **response})
        by_style = {style: [row for row in paths if row["style"] == style] for style in ("cot", "plain", "rationale")}
        counted = {
            style: {"paths": len(rows), "correct": sum(row["correct"] for row in rows)}
            | {
                "committed": sum(row["extracted"] is not None for row in rows),
                "chains": len(rows),
                "cut": 0,
                "tokens": 9,
            }
            for style, rows in by_style.items()
        }
        sampling = {"cot": 3, "plain": 1, "rationales": 1, "hint": "It is {answer}. Explain."}
        settings = {"system": "", "prompt": PROMPT, "sampling": sampling}
        file = self._artifact("sample", ("ant-135m", f"sums{seed}"), "paths.jsonl", paths, settings, {"paths": counted})
        origin = {"student": "ant-135m", "teacher": "qwen2.5-1.5b", "task": "sums", "after": "", "refine_task": "sums"}
        origin |= {"share": "100", "seed": str(seed)}
        pairs = [] if seed in self.unrefined else self._pairs(items, by_style)
        held_out = sum(pair["split"] == "validation" for pair in pairs)
        figures = {"items": len(items), "items_with_pairs": len(pairs), "pairs": len(pairs)}
        figures["train"] = len(pairs) - held_out
        dropped = {"no_chosen": len(items) - len(pairs), "no_rejected": 0, "same_text": 0}
        figures |= {"validation": held_out, "rejected_correct": 0, "dropped": dropped}
        made = self._artifact(
            "pair", ("ant-135m", f"sums{seed}"), "pairs.jsonl", pairs, {}, {"pairs": figures}, inputs={file: {}}
        )
        self.index["paths"].append(file)
        self.index["pairs"].append(made)
        self.index["origins"] |= {file: origin, made: {**origin, "recipe": "cot"}}

    @staticmethod
    def _pairs(items: list[dict], paths: dict[str, list[dict]]) -> list[dict]:
        """A correct chain of thought against the plain answer of its item."""
        pairs = []
        for item in items:
            correct = [row for row in paths["cot"] if row["item"] == item["id"] and row["correct"]]
            plain = [row for row in paths["plain"] if row["item"] == item["id"]]
            if correct:
                sides = [
                    {"id": row["id"], "text": row["text"], "source": f"student {row['style']}"}
                    | {"finished": row["finish_reason"] == "stop", "correct": row["correct"]}
                    for row in (correct[0], plain[0])
                ]
                split = "validation" if len(pairs) % 4 == 3 else "train"
                pairs.append({"id": f"{item['id']}-0", "item": item["id"], "split": split, "prompt": "cot"})
                pairs[-1] |= {"chosen": sides[0], "rejected": sides[1]}
        return pairs

    def _artifact(
        self, stage: str, names: tuple, file: str, rows: list, settings=None, figures=None, inputs=None
    ) -> str:
        folder = Path("results/store").joinpath(stage, *names, "0" * 12)
        folder.mkdir(parents=True)
        path = folder / file
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        record = {
            "stage": stage,
            "settings": settings or {},
            "figures": {"tokens_made": 100, **(figures or {})},
            "inputs": inputs or {},
            "wall_seconds": 61.5,
            "peak_memory_mib": 512,
            "packages": {"python": "3.11", "torch": "2.13.0"},
            "machine": {"cpu": "made up", "cores": 2},
            "started": "2026-01-02T03:04:05Z",
        }
        (folder / "record.json").write_text(json.dumps(record))
        if stage not in ("prepare", "export_task"):
            self.records.append(str(folder / "record.json"))
        return str(path)
