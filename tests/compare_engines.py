"""Asks engines transformers and vllm the same with a real model; writes their tokens as JSON.

    python tests/compare_engines.py RECORD DTYPE QUESTIONS SEEDED OUTPUT

runs with an interpreter that has vLLM. RECORD is a checkpoint's record, QUESTIONS a JSON file with a list of questions,
SEEDED the number of samples of SHORT that vLLM draws a single token of.
"""

import dataclasses
import inspect
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from selfrefine.engines.checkpoint_engines import open_checkpoint_engine
from selfrefine.engines.interface import Request, seed_for
from selfrefine.models.checkpoints import load_checkpoint, prepare_torch
from selfrefine.schema.generation import Answering, Generation

MEMORY = 0.25
SHORT = "How many are 2 and 3?"
TOKENS = 40


def request(name: str, text: str, generation: Generation, sample: int = 0) -> Request:
    return Request(name, [{"role": "user", "content": text}], generation, seed_for(name, 0, "cot", sample))


def answers(engine, requests: list[Request]) -> dict[str, dict]:
    """{ids, and the completion's fields} by request id; `finish` is called with the ids that the model generated."""
    made = []
    finish = engine.finish

    def noting(tokens, prompt):
        made.append(list(tokens))
        return finish(tokens, prompt)

    engine.finish = noting
    found = {}
    for batch in engine.batches(requests):
        for asked, completion in zip(batch, engine.generate(batch), strict=True):
            found[asked.id] = {"ids": made.pop(0), **dataclasses.asdict(completion)}
    engine.finish = finish
    return found


@torch.inference_mode()
def first_difference(model, prompt: list[int], one: list[int], other: list[int]) -> dict | None:
    """Where two answers diverge, and by how many logits each one's token there is below the likeliest."""
    place = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return None
    logits = model(torch.tensor([prompt + one[:place]])).logits[0, -1].float()
    return {"place": place, "behind": [float(logits.max() - logits[token]) for token in (one[place], other[place])]}


@torch.inference_mode()
def main() -> None:
    record, dtype, questions, seeded, output = sys.argv[1:]
    prepare_torch(1, "vllm")
    texts = json.loads(Path(questions).read_text())
    greedy = [request(f"q{i}", text, Generation(max_tokens=TOKENS)) for i, text in enumerate(texts)]
    hot = Generation(max_tokens=16, temperature=0.8, top_p=0.95)
    sampled = [request(f"s{i}-{k}", text, hot, k) for i, text in enumerate(texts) for k in range(2)]
    single = [request(f"one-{k}", SHORT, Generation(max_tokens=1, temperature=1.0), k) for k in range(int(seeded))]

    local = open_checkpoint_engine(Path(record), Answering(dtype=dtype, batch_size=16), MEMORY)
    engine = open_checkpoint_engine(Path(record), Answering(engine="vllm", dtype=dtype, batch_size=None), MEMORY)
    engine.read([*greedy, *sampled, *single])
    expected, found = answers(local, greedy), answers(engine, greedy)
    # Drawn first as they come, then by halves and the other way round.
    drawn, again = answers(engine, sampled), {}
    for part in (sampled[::2][::-1], sampled[1::2][::-1]):
        again |= answers(engine, part)
    firsts = [row["ids"][0] for row in answers(engine, single).values()]
    local.read(greedy)
    engine.read(greedy)
    prompts = {r.id: local._prompts[r.id] for r in greedy}
    model, _, _ = load_checkpoint(Path(record), dtype)
    short = local.encode([{"role": "user", "content": SHORT}])
    chances = torch.softmax(model(torch.tensor([short])).logits[0, -1].float(), dim=-1)

    import vllm.outputs

    result = {
        "prompts_equal": prompts == {r.id: engine._prompts[r.id] for r in greedy},
        "stop_ids": [sorted(local.stop_ids), sorted(engine.stop_ids)],
        "transformers": expected,
        "vllm": found,
        "differences": {
            name: first_difference(model, prompts[name], expected[name]["ids"], found[name]["ids"])
            for name in expected
            if expected[name] != found[name]
        },
        "drawn": drawn,
        "drawn_again": again,
        "firsts": firsts,
        "likely": {str(token): float(chances[token]) for token in chances.topk(20).indices.tolist()},
        "fields": {
            "CompletionOutput": [field.name for field in dataclasses.fields(vllm.outputs.CompletionOutput)],
            "RequestOutput": list(inspect.signature(vllm.outputs.RequestOutput).parameters),
            "SamplingParams": list(inspect.signature(vllm.SamplingParams).parameters),
        },
    }
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
