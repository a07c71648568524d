"""The prompts of all stages: instruction, question and last line, as in the source paper."""

from selfrefine.schema.prompt import Prompt
from selfrefine.schema.rows import Item, Message


def messages(item: Item, prompt: Prompt, style: str, request: str = "", system: str | None = None) -> list[Message]:
    """The chat that asks one item: an optional system message and one user message.

    `request` is an extra last line, for teachers and rationales only. With `system` None the model's own chat template
    decides on the system message.
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
    chat: list[Message] = [{"role": "user", "content": "\n".join(lines)}]
    return chat if system is None else [{"role": "system", "content": system}, *chat]
