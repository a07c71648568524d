"""What the page calls models without a title, arms and checkpoints: SmolLM2-135M for smollm2-135m."""

import re
from collections.abc import Mapping

from selfrefine.report.labels import checkpoint_label, unrefined_mark
from selfrefine.report.model_names import Models

# How the makers of models spell what a configuration names in lower case.
SPELLINGS = {
    **{name.lower(): name for name in ("SmolLM", "SmolLM2", "SmolLM3", "Llama", "Llama2", "Llama3", "TinyLlama")},
    **{name.lower(): name for name in ("Qwen", "Phi", "Gemma", "Mistral", "Mixtral", "OLMo", "Pythia", "DeepSeek")},
    **{name.lower(): name for name in ("Coder", "Instruct", "Chat", "Base", "Math", "Mini", "Flash", "Turbo")},
    "gpt": "GPT",
    "it": "IT",
}
ARMS = {
    "baseline": "Baseline",
    "instruct": "Instructed",
    "refine": "Refined",
    "cross": "Refined on another benchmark",
    "refine-only": "Refined without instruction",
    "teacher": "Teacher",
}
STYLES = {"cot": "chain of thought", "plain": "answer only", "rationale": "with a hint"}


def model_title(name: str) -> str:
    """A model's name as its makers spell it; a name that nobody knows stays as it is."""
    return "-".join(_spelled(part) for part in name.split("-"))


def _spelled(part: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?[mb]", part) or re.fullmatch(r"\d+x\d+b", part):
        return part.upper().replace("X", "x")
    word, number = re.fullmatch(r"(.*?)([\d.]*)", part).groups()  # type: ignore[union-attr]  # it always matches
    return SPELLINGS.get(part) or (SPELLINGS[word] + number if word in SPELLINGS else part)


# Where the configuration gives no titles.
SPELLED = Models(spell=model_title)


def who(facts: Mapping[str, object], titles: Mapping[str, str], shown: set[str], models: Models = SPELLED) -> str:
    """An arm in words, such as "SmolLM2-135M, instructed by Qwen2.5-Coder-1.5B on ASDiv, then refined".

    `shown`: those of recipe, share and seed that the study has several of.
    """
    if facts["arm"] == "teacher":
        return f"{models.teacher(facts['teacher'])} (teacher)"
    told = {**facts, "teacher": models.teacher(facts["teacher"])}
    label = checkpoint_label(told, titles, {"teacher", *shown})
    return f"{models.student(facts['student'])}, {label}{unrefined_mark(facts)}"
