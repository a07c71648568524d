"""The requests that a stage makes of an engine: one for each item, style and sample."""

from collections.abc import Sequence

from selfrefine.data.prompts import messages
from selfrefine.engines.interface import Request, seed_for
from selfrefine.schema.generation import Generation, Thinking
from selfrefine.schema.prompt import Prompt
from selfrefine.schema.rows import Item, Message


def requests_for(
    items: dict[str, Item],
    prompt: Prompt,
    style: str,
    samples: int,
    generation: Generation,
    seed: int,
    *,
    request: str = "",
    system: str | None = None,
    shots: Sequence[Item] = (),
    stop: Sequence[str] = (),
    thinking: Thinking = "keep",
) -> list[Request]:
    """`samples` requests per item in one style; ids are `{item}-{style}-{sample}`.

    A rationale is asked for like a chain of thought, with the correct answer given: `{answer}` in `request`.
    `shots` are the items that prompts show as worked examples; generation ends at a string of `stop`;
    `thinking` says what becomes of thoughts.
    """
    given = style == "rationale"

    def chat(item: Item) -> list[Message]:
        line = request.replace("{answer}", item["answer"]) if given else request
        return messages(item, prompt, "cot" if given else style, line, system, shots)

    return [
        Request(
            id=f"{item_id}-{style}-{sample}",
            messages=chat(item),
            generation=generation,
            seed=seed_for(item_id, seed, style, sample),
            stop=tuple(stop),
            thinking=thinking,
        )
        for item_id, item in items.items()
        for sample in range(samples)
    ]
