"""Thoughts, `<think>…</think>`, in answers: kept, stripped or ended; an answer within one is none."""

import copy
import dataclasses

import pytest

from selfrefine.answers.extraction import EXTRACTORS, after_thoughts, extract, is_chain
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.recorded import RecordedEngine
from selfrefine.engines.transformers import TransformersEngine
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import load_model, load_tokenizer
from selfrefine.schema.generation import Budget, Generation
from selfrefine.store.files import write_jsonl
from selfrefine.study import stage_settings
from selfrefine.study.design import Study
from selfrefine.training.encoding import encode_completion, encode_prompt
from test_study import SMALL

CHAT = [{"role": "user", "content": "Box 010 is red today."}]
# A template whose prompt opens the thought.
OPENING = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token if m['role'] == 'assistant' else '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}assistant: <think>\n{% endif %}"
)

ANSWERS = {
    "The answer is 5.": "5",
    "<think>\nIs the answer 4? The answer is 4.\n</think>\n\nThe answer is 5.": "5",
    "The answer is 4, or so it seems.\n</think>\n\nThe answer is 5.": "5",
    "<think>\nThe answer is 5.": None,
    "<think>\nThe answer is 5.\n</think>\n\nI cannot say.": None,
    "The answer is 5. <think>\nOr is the answer 4?": None,
    "<think>one</think>The answer is 4.<think>two</think> The answer is 5.": "5",
}


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_within_a_thought_is_none(text, extractor):
    assert extract(text, "math", [], extractor) == ANSWERS[text]


def test_a_thought_is_a_chain():
    assert is_chain("<think>two and three make five, so five</think>The answer is 5.")
    assert is_chain("<think>two and three make five, so five")
    assert not is_chain("<think>\n\n</think>\n\nThe answer is 5.")


class Scripted(TransformersEngine):
    """Gives the answers that it is told to, a token each word, cut at max_tokens, and keeps its requests."""

    def __init__(self, parts, texts):
        super().__init__(*parts, {"weights": "scripted"}, 4)
        self.texts = texts
        self.asked = []

    def generate(self, batch):
        made = []
        for request in batch:
            self.asked.append(request)
            words = self.texts[request.id].split(" ")
            kept = words[: request.generation.max_tokens]
            reason = "stop" if len(kept) == len(words) else "length"
            made.append(Completion(" ".join(kept), reason, len(kept), 3))
        return made


@pytest.fixture(scope="module")
def parts(tiny_model):
    return load_model(tiny_model, "float32"), load_tokenizer(tiny_model)


def asked(thinking, name="a", most=9):
    return Request(name, CHAT, Generation(max_tokens=most), thinking=thinking)


SHORT, LONG = "<think> one </think> The answer is 5.", "<think> one two three four five six seven"


@pytest.mark.parametrize(
    ("thinking", "text", "expected"),
    [
        ("keep", SHORT, (SHORT, "stop")),
        ("strip", SHORT, ("The answer is 5.", "stop")),
        ("keep", LONG, (LONG, "stop")),
        # A thought without an end is not an answer that is whole.
        ("strip", LONG, ("", "length")),
        (Budget(budget=8), SHORT, (SHORT, "stop")),
    ],
)
def test_thoughts_are_kept_or_stripped(parts, tmp_path, thinking, text, expected):
    engine = Scripted(parts, {"a": text})
    found = complete(engine, [asked(thinking)], tmp_path / "out.jsonl", "test")["a"]
    assert (found.text, found.finish_reason) == expected


def test_a_thought_over_its_budget_is_closed_and_the_model_goes_on(parts, tmp_path):
    engine = Scripted(
        parts,
        {
            "a": LONG,
            "a-after": "The answer is 5.",
            "b": SHORT,
            "b-after": " answer is 5.",
            "c": "so " * 9,
            "c-after": " it is.",
        },
    )
    wanted = [asked(Budget(budget=4), name, most) for name, most in (("a", 9), ("b", 9), ("c", 9))]
    found = complete(engine, wanted, tmp_path / "out.jsonl", "test")
    assert found["a"].text == "<think> one two three\n</think>\n\nThe answer is 5."
    assert (found["a"].finish_reason, found["a"].tokens, found["a"].prompt_tokens) == ("stop", 8, 3)
    after = {request.id: request for request in engine.asked if request.id.endswith("-after")}
    prompt = engine.rendered(wanted[0])
    assert after["a-after"].messages[0]["content"] == f"{prompt}<think> one two three\n</think>\n\n"
    assert after["a-after"].raw and after["a-after"].generation.max_tokens == 5
    # What is cut after a thought, or without one, goes on as it was.
    assert (found["b"].text, found["c"].text) == ("<think> one </think> The answer is 5.", "so so so so it is.")
    # A second run takes all from the journal.
    again = Scripted(parts, {})
    assert complete(again, wanted, tmp_path / "out.jsonl", "test") == found and not again.asked


def test_a_recording_of_a_budgeted_teacher_is_whole(tmp_path):
    request = asked(Budget(budget=4))
    rows = [
        {"recording": {}},
        {"key": request.key, "text": "so.", "finish_reason": "stop", "tokens": 9, "prompt_tokens": 3},
    ]
    write_jsonl(tmp_path / "kept.jsonl", rows)
    engine = RecordedEngine(tmp_path / "kept.jsonl")
    assert complete(engine, [request], tmp_path / "out.jsonl", "test")["a"].text == "so."
    # What is stripped was generated alike; what had a budget was not.
    assert asked("strip").key == asked("keep").key != request.key != asked(Budget(budget=5)).key


def test_a_budget_reaches_a_real_model(parts, tmp_path):
    engine = TransformersEngine(*parts, {"weights": "tiny"}, 4)
    wanted = [dataclasses.replace(asked(Budget(budget=4), most=12), id=f"q{i}", seed=i) for i in range(5)]
    found = complete(engine, wanted, tmp_path / "out.jsonl", "test")
    assert all(one.tokens <= 12 for one in found.values())
    assert any(one.tokens > 4 for one in found.values())


@pytest.fixture(scope="module")
def opening(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = OPENING
    return tokenizer


def test_a_thought_that_the_prompt_opens_is_not_opened_again(opening):
    text = "<think>\nred\n</think>\n\nThe answer is B."
    prompt = encode_prompt(opening, CHAT)
    whole = opening.decode(prompt + encode_completion(opening, CHAT, text))
    assert whole.count("<think>") == 1 and whole.endswith(
        "<think>\nred\n</think>\n\nThe answer is B." + opening.eos_token
    )
    # As the model makes it, the text begins within the thought.
    made = "red\n</think>\n\nThe answer is B."
    assert encode_completion(opening, CHAT, made) == encode_completion(opening, CHAT, text)


def test_a_thought_that_the_prompt_opens_and_nothing_closes_says_so(parts, opening):
    engine = TransformersEngine(parts[0], opening, {"weights": "tiny"}, 4)
    prompt, made = encode_prompt(opening, CHAT), opening("The answer is B", add_special_tokens=False)["input_ids"]
    cut = engine.finish(made, prompt)
    assert (cut.text, cut.finish_reason) == ("<think>\nThe answer is B", "length")
    assert after_thoughts(cut.text) is None
    whole = engine.finish([*made, opening.eos_token_id], prompt)
    assert (whole.text, whole.finish_reason) == ("The answer is B", "stop")


def test_a_key_says_it_for_student_and_teacher_alike():
    config = copy.deepcopy(SMALL)
    config["students"]["ant"]["thinking"] = {"budget": 20}
    config["teachers"]["owl"]["thinking"] = "strip"
    study = Study.read(config)
    sampled = stage_settings.settings(study, "sample", start="ant/base", task="add", share="100", seed="0")
    evaluated = stage_settings.settings(study, "evaluate", checkpoint="ant/base", task="add")
    taught = stage_settings.settings(study, "teach", teacher="owl", task="add", split="train", style="cot")
    assert sampled["thinking"] == evaluated["thinking"] == {"budget": 20}
    assert taught["thinking"] == "strip"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("students/ant", {"budget": 0}, "students.ant.thinking"),
        ("students/ant", "hide", "students.ant.thinking"),
        ("students/ant", {"budget": 4096}, "students.ant.thinking.budget: 4096 tokens .* leave none"),
        ("teachers/owl", {"budget": 4096}, "must leave some of generation.max_tokens"),
    ],
)
def test_thinking_that_cannot_be_is_refused(place, value, message):
    config = copy.deepcopy(SMALL)
    section, name = place.split("/")
    config[section][name]["thinking"] = value
    with pytest.raises(UserError, match=message):
        Study.read(config)
