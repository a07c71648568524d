"""The prompts of all stages, as in the source paper: instruction, question and last line."""

from collections.abc import Sequence

from selfrefine.schema.prompt import Prompt, Shots, TaskPrompt
from selfrefine.schema.rows import Item, Message


def messages(
    item: Item,
    prompt: Prompt,
    style: str,
    request: str = "",
    system: str | None = None,
    shots: Sequence[Item] = (),
) -> list[Message]:
    """The chat that asks one item: an optional system message and one user message.

    `request` is an extra last line, for teachers and rationales only. With `system` None the model's own chat template
    decides on the system message. `shots` are the items that may be shown as worked examples (data/shots.py); an item
    is never shown itself.
    """
    ending = prompt.cot if style == "cot" else prompt.plain
    lines = [prompt.instruction.replace("{labels}", ", ".join(_labels(item)))]
    if isinstance(prompt, TaskPrompt) and prompt.shots is not None:
        others = [shot for shot in shots if not _same_question(shot, item)][: prompt.shots.number]
        for shot in others:
            lines += example_lines(shot, prompt.shots, ending, style)
    lines += [*_question(item), ending]
    if request:
        lines.append(request)
    chat: list[Message] = [{"role": "user", "content": "\n".join(lines)}]
    return chat if system is None else [{"role": "system", "content": system}, *chat]


def example_lines(shot: Item, shots: Shots, ending: str, style: str) -> list[str]:
    """The lines of a worked example; `ending` is the line that elicits an answer."""
    return [*_question(shot), ending, *_response(shot, shots, style), ""]


def _same_question(item: Item, other: Item) -> bool:
    """Whether two items ask the same, with the same options in the same order."""
    return (item["question"], item["choices"]) == (other["question"], other["choices"])


def _labels(item: Item) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(item["choices"])]


def question_text(item: Item) -> str:
    """An item's question with its options, as prompts put it, and nothing else of a prompt."""
    return "\n".join(_question(item))


def _question(item: Item) -> list[str]:
    """The lines that put a question."""
    lines = [f"Question: {item['question']}"]
    if item["choices"]:
        lines.append("Choices:")
        lines += [f"{label}) {choice}" for label, choice in zip(_labels(item), item["choices"], strict=True)]
    return lines


def _response(item: Item, shots: Shots, style: str) -> list[str]:
    """The lines that answer a worked example: its solution, where a chain of thought is elicited, and its answer."""
    # "Washington, D.C." brings the period that ends the line.
    ending = shots.answer.replace("{answer}.", f"{item['answer'].removesuffix('.')}.").replace(
        "{answer}", item["answer"]
    )
    solution = item.get("solution", "") if style == "cot" else ""
    return [solution, ending] if solution else [ending]
