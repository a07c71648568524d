"""The prompts, written once for teacher, sampler and evaluation: (instruction, input, cue), as in the source paper."""

from pydantic import BaseModel, ConfigDict, Field


class Prompt(BaseModel):
    """How a question of one kind is put to a model; the wording is configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: str = Field(min_length=1, description="The task; {labels} stands for the benchmark's option letters.")
    cot: str = Field(
        "Answer: Let's think step by step", description="The last line where a chain of thought is elicited."
    )
    plain: str = Field("Answer:", description="The last line where none is.")


def messages(
    item: dict, prompt: Prompt, style: str, request: str = "", system: str | None = None
) -> list[dict[str, str]]:
    """The chat that asks one item: an optional system message and one user message.

    `item` has id, kind, question and choices (texts in order, empty for `math`). `request` is an extra last line,
    for teachers only. `system` None leaves the system message to the model's own chat template.
    """
    labels = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(item["choices"])]
    lines = [prompt.instruction.replace("{labels}", ", ".join(labels))]
    lines.append(f"Question: {item['question']}")
    if item["choices"]:
        lines.append("Choices:")
        lines += [f"{label}) {choice}" for label, choice in zip(labels, item["choices"], strict=True)]
    lines.append(prompt.cot if style == "cot" else prompt.plain)
    if request:
        lines.append(request)
    chat = [{"role": "user", "content": "\n".join(lines)}]
    return chat if system is None else [{"role": "system", "content": system}, *chat]
