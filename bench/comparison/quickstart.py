"""The quickstart study's weights, items, chats, settings and checkpoints, for benches to work with."""

import contextlib
import functools
import json
import random
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "scripts"))

from selfrefine.data.prompts import messages  # noqa: E402
from selfrefine.engines.item_requests import requests_for  # noqa: E402
from selfrefine.schema.generation import Generation  # noqa: E402
from selfrefine.schema.prompt import Prompt  # noqa: E402
from selfrefine.store.files import read_json, read_jsonl, write_jsonl  # noqa: E402
from selfrefine.study.artifact import Artifact  # noqa: E402
from selfrefine.study.design import Study  # noqa: E402
from selfrefine.study.open_study import finals_of, read_configuration  # noqa: E402

TASK = "asdiv"
MADE = "run `make quickstart` first, or `snakemake` until these are there: the first steps suffice"


class Quickstart:
    """What config/config.yaml asks for. `results` has the store with its sources, weights and checkpoints.

    Where this checkout would make an artifact anew, the latest with the same names is used. What a bench makes goes to
    `scratch`. `part` keeps every so many-th item, for a quick look. `FileNotFoundError`, which says what to run,
    if the study's first steps were not made.
    """

    def __init__(self, results: Path, scratch: Path, part: int = 1):
        self.settings = yaml.safe_load((ROOT / "config/config.yaml").read_text())
        self.prompts = yaml.safe_load((ROOT / "config/benchmarks.yaml").read_text())["prompts"]
        self.finals = finals_of(Study.read(read_configuration([])).located(ROOT), keep=False)
        self.results, self.scratch, self.part = results, scratch, part
        (self.student,) = self.settings["study"]["students"]
        self.batch = self.settings["students"][self.student]["batch_size"]
        self.system = self.settings["students"][self.student].get("system")
        artifacts, (teacher,) = self.finals.artifacts, self.settings["study"]["teachers"]
        self.base = self.needed(artifacts.model(self.settings["students"][self.student]["model"]))
        self.model = self.base.parent
        self.train_items = self.needed(artifacts.items(TASK, "train")).with_name("items.jsonl")
        demonstrations = self.needed(artifacts.demonstrations(teacher, TASK))
        self.demonstrations_file = self._cut(demonstrations.with_name("demonstrations.jsonl"))

    @property
    def folder(self) -> Path:
        """The folder that paths in records are relative to."""
        return self.results.parent

    def made(self, one: Artifact) -> Path | None:
        """The record of an artifact, or else of the latest with the same names; None if there is none."""
        if (own := self.folder / one.record).exists():
            return own
        found = (self.folder / one.folder.parent).glob("*/record.json")
        return max(found, key=lambda record: record.stat().st_mtime, default=None)

    def needed(self, one: Artifact) -> Path:
        """As `made`; `FileNotFoundError` if there is none."""
        if record := self.made(one):
            return record
        raise FileNotFoundError(f"{self.folder / one.folder.parent}: nothing there; {MADE}")

    def _cut(self, path: Path) -> Path:
        """A file with a part of the rows of another."""
        if self.part == 1:
            return path
        cut = self.scratch / f"cut-{path.name}"
        write_jsonl(cut, sorted(read_jsonl(path), key=lambda row: row["id"])[:: self.part])
        return cut

    @functools.cached_property
    def config(self) -> dict:
        """The model's config.json."""
        return read_json(self.model / "config.json")

    @functools.cached_property
    def tokenizer(self):
        """The model's own."""
        from selfrefine.models.checkpoints import load_tokenizer

        return load_tokenizer(self.model)

    @property
    def prompt(self) -> dict:
        """The training items' prompt, as a stage's settings have it."""
        return self.prompts["math"]

    def checkpoints(self) -> dict[str, Path]:
        """The records of baseline, instruct and refine, as far as the study got."""
        found = {"baseline": self.base}
        for one in self.finals.inputs.behind["training"]:
            if record := self.made(one):
                found.setdefault(one.stage, record)
        return {name: found[name] for name in ("baseline", "instruct", "refine") if name in found}

    def items(self) -> dict[str, dict]:
        """The training items, by id."""
        return {item["id"]: item for item in read_jsonl(self.train_items)[:: self.part]}

    def ids(self, chat: list[dict]) -> list[int]:
        """A chat's token ids, the generation prompt included."""
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def asked(self, chats: list[list[dict]], max_tokens: int, temperature: float, seeds: list[int]) -> dict:
        """What a worker is asked for."""
        return {
            "chats": chats,
            "prompts": [self.ids(chat) for chat in chats],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seeds": seeds,
            "stop": self.tokenizer.eos_token_id,
            "exact": False,
        }

    def sampling(self) -> dict:
        """The sampled paths' requests."""
        settings = self.settings["sampling"]
        generation = Generation(**settings["generation"])
        requests = [
            request
            for style in ("cot", "plain")
            for request in requests_for(
                self.items(), Prompt(**self.prompt), style, settings[style], generation, 0, system=self.system
            )
        ]
        chats, seeds = [request.messages for request in requests], [request.seed for request in requests]
        return self.asked(chats, generation.max_tokens, generation.temperature, seeds)

    def evaluations(self) -> dict[str, dict]:
        """A checkpoint's requests, by benchmark: the documents that lm-eval reads."""
        found = {}
        for task in self.settings["study"]["evaluate"]:
            path = self.needed(self.finals.artifacts.lm_eval_task(task)).with_name("docs.jsonl")
            system = [] if self.system is None else [{"role": "system", "content": self.system}]
            documents = read_jsonl(path)[:: self.part]
            chats = [[*system, {"role": "user", "content": document["prompt"]}] for document in documents]
            found[task] = self.asked(chats, self.settings["evaluation"]["max_tokens"], 0.0, [0] * len(chats))
        return found

    def demonstrations(self) -> list[dict]:
        """What phase 1 learns from: {prompt, completion} in chats, as TRL reads them."""
        items = {item["id"]: item for item in read_jsonl(self.train_items)}
        return [
            {"prompt": self._chat(items[row["item"]]), "completion": _said(row["text"])}
            for row in sorted(read_jsonl(self.demonstrations_file), key=lambda row: row["id"])
        ]

    def _chat(self, item: dict) -> list[dict]:
        return messages(item, Prompt(**self.prompt), "cot", system=self.system)

    def pairs_file(self) -> tuple[Path, str]:
        """Preference pairs, and where they come from: the study's own, or else made from its demonstrations.

        Those are three of four questions with several pairs, as a student gives that solves many: chosen responses that
        share their question, and rejected ones of like length.
        """
        for one in self.finals.inputs.behind["pairs"]:
            if record := self.made(one):
                return self._cut(record.with_name("pairs.jsonl")), "the study's own"
        rows = sorted(read_jsonl(self.demonstrations_file), key=lambda row: row["id"])
        draw = random.Random(0)
        pairs = []
        for place, row in enumerate(rows):
            split = "validation" if place % 5 == 0 else "train"
            for number in range(1 + place % 4 % 3):
                others = [row["text"].replace(". ", "; ", number), rows[draw.randrange(len(rows))]["text"]]
                sides = {
                    side: {"id": f"{row['id']}-{side}-{number}", "text": text, "finished": True, "correct": not place}
                    for side, text, place in (("chosen", others[0], 0), ("rejected", others[1], 1))
                }
                name = f"{row['id']}-{number}"
                pairs.append({"id": name, "item": row["item"], "split": split, "prompt": "cot", **sides})
        path = self.scratch / "pairs.jsonl"
        write_jsonl(path, pairs)
        return path, "made from the demonstrations"

    def pairs(self, path: Path) -> dict[str, list[dict]]:
        """The pairs of a file by split, {prompt, chosen, rejected} in chats, as TRL reads them."""
        items = {item["id"]: item for item in read_jsonl(self.train_items)}
        found: dict[str, list[dict]] = {"train": [], "validation": []}
        for pair in sorted(read_jsonl(path), key=lambda pair: pair["id"]):
            sides = {side: _said(pair[side]["text"]) for side in ("chosen", "rejected")}
            found[pair["split"]].append({"prompt": self._chat(items[pair["item"]]), **sides})
        return found

    def merged(self, record: Path, name: str) -> Path:
        """A folder with a checkpoint's weights merged, bfloat16, in the Hugging Face layout: what the peers load."""
        from selfrefine.models.checkpoints import load_checkpoint

        folder = self.scratch / f"merged-{name}"
        if not folder.exists():
            with contextlib.chdir(self.folder):
                model, tokenizer, _ = load_checkpoint(record, "bfloat16")
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    def lengths(self, rows: list[dict], sides: tuple[str, ...]) -> tuple[int, int]:
        """(all tokens, those of answers) of rows whose prompt is repeated for each of the sides."""
        whole = answers = 0
        for row in rows:
            prompt = len(self.ids(row["prompt"]))
            for side in sides:
                text = row[side][0]["content"]
                answer = len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
                whole, answers = whole + prompt + answer, answers + answer
        return whole, answers


def _said(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def write(path: Path, value) -> Path:
    """Writes JSON for a program in another process."""
    path.write_text(json.dumps(value))
    return path
