"""How benchmarks are asked: their own prompts and requests, worked examples, stop strings."""

import copy
import importlib.util
import json

import pytest
import yaml

from conftest import INSTRUCTION, REPOSITORY, artifact, make_study, run, snakemake
from selfrefine.answers import extraction
from selfrefine.answers.extraction import extract, is_chain
from selfrefine.data.items import read_items
from selfrefine.data.mapping import to_item
from selfrefine.data.prompts import messages
from selfrefine.data.shots import items_to_show, refuse_shown, resolved
from selfrefine.engines import transformers as local
from selfrefine.engines.interface import Completion, Request, seed_for
from selfrefine.engines.openai.bodies import answer_of, body_of
from selfrefine.engines.recorded import RecordedEngine
from selfrefine.engines.stop_strings import cut
from selfrefine.engines.transformers import TransformersEngine
from selfrefine.errors import UserError
from selfrefine.judging.lm_eval_task import export_task
from selfrefine.models.checkpoints import load_model, load_tokenizer
from selfrefine.schema.benchmark import Mapping
from selfrefine.schema.generation import Generation
from selfrefine.schema.prompt import Shots, TaskPrompt
from selfrefine.schema.stages import ExportTaskSettings
from selfrefine.store.files import read_json, read_jsonl, write_jsonl
from selfrefine.study import stage_settings
from selfrefine.study.design import Study
from test_study import SMALL

EXAMPLES = [
    {"question": "What is 2 + 3?", "answer": "5", "solution": "2 and 3 are 5."},
    {"question": "What is 1 + 1?", "answer": "2"},
]


def study_with(**of_add) -> Study:
    config = copy.deepcopy(SMALL)
    config["benchmarks"]["add"] |= of_add
    return Study.read(config)


def item(question, answer="1", **more):
    return {"id": question, "kind": "math", "question": question, "choices": [], "answer": answer, **more}


# Prompts and requests.


def test_a_benchmark_changes_parts_of_its_kinds_prompt_in_every_stage():
    study = study_with(prompt={"instruction": "Rechne.", "plain": "Antwort:"}, request="Fasse dich kurz.")
    of = {"task": "add", "share": "100", "seed": "0"}
    settings = [
        stage_settings.settings(study, "teach", teacher="owl", task="add", split="train", style="cot"),
        stage_settings.settings(study, "sample", start="ant/base", **of),
        stage_settings.settings(study, "instruct", student="ant", teacher="owl", **of),
        stage_settings.settings(study, "refine", start="ant/base", recipe="cot", **of),
        stage_settings.settings(study, "export_task", task="add"),
    ]
    assert {one["prompt"]["instruction"] for one in settings} == {"Rechne."}
    assert {one["prompt"]["cot"] for one in settings} == {"Answer: Let's think step by step"}
    assert settings[1]["prompt"]["plain"] == "Antwort:"
    assert settings[0]["request"] == "Fasse dich kurz."
    other = stage_settings.settings(study, "export_task", task="pick")
    assert other["prompt"]["instruction"] != "Rechne."


def test_a_benchmark_may_have_a_prompt_where_its_kind_has_none():
    config = copy.deepcopy(SMALL)
    del config["prompts"]["math"]
    with pytest.raises(UserError, match="has no entry for kind 'math' \\(benchmark 'add'\\)"):
        Study.read(config)
    config["benchmarks"]["add"]["prompt"] = {"instruction": "Add."}
    assert stage_settings.settings(Study.read(config), "export_task", task="add")["prompt"]["instruction"] == "Add."


# Worked examples.


def test_examples_stand_between_instruction_and_question():
    shots = Shots(number=1, answer="Final answer: {answer}")
    prompt = TaskPrompt(instruction="Add.", shots=shots)
    shown = [item("What is 2 + 3?", "5", solution="2 and 3 are 5.")]
    (cot,) = messages(item("What is 4 + 4?"), prompt, "cot", "Be brief.", shots=shown)
    assert cot["content"] == (
        "Add.\nQuestion: What is 2 + 3?\nAnswer: Let's think step by step\n2 and 3 are 5.\nFinal answer: 5\n\n"
        "Question: What is 4 + 4?\nAnswer: Let's think step by step\nBe brief."
    )
    (plain,) = messages(item("What is 4 + 4?"), prompt, "plain", shots=shown)
    assert "2 and 3" not in plain["content"] and "Answer:\nFinal answer: 5\n\n" in plain["content"]


def test_an_item_is_never_its_own_example_and_every_prompt_shows_as_many():
    items = [item(f"q{number}") for number in range(4)]
    prompt = TaskPrompt(instruction="Add.", shots=Shots(number=3))
    for asked in (*items, item("other")):
        (message,) = messages(asked, prompt, "cot", shots=items)
        assert message["content"].count(f"Question: {asked['question']}\n") == 1
        assert message["content"].count("Question: ") == 4


def test_items_of_the_training_split_are_taken_in_a_seeded_order(tmp_path):
    write_jsonl(tmp_path / "items.jsonl", [item(f"q{number}") for number in range(30)])

    def taken(number, seed):
        prompt = TaskPrompt(instruction="Add.", shots=Shots(number=number, seed=seed))
        return [one["id"] for one in items_to_show(prompt, tmp_path / "items.jsonl")]

    assert taken(4, 0) == taken(4, 0) == taken(9, 0)[:5]
    assert taken(4, 0) != taken(4, 1)
    with pytest.raises(UserError, match="has 30 items, too few to show 30"):
        taken(30, 0)


@pytest.mark.parametrize("as_file", [True, False])
def test_examples_of_a_file_become_part_of_the_settings(tmp_path, as_file):
    write_jsonl(tmp_path / "shots.jsonl", EXAMPLES)
    shots = {"file": str(tmp_path / "shots.jsonl")} if as_file else {"examples": EXAMPLES}
    settings = stage_settings.settings(study_with(shots=shots), "export_task", task="add")
    assert [example["answer"] for example in settings["prompt"]["shots"]["examples"]] == ["5", "2"]
    assert settings["prompt"]["shots"]["file"] is None
    shown = items_to_show(TaskPrompt.model_validate(settings["prompt"]), None)
    (message,) = messages(item("What is 4 + 4?"), TaskPrompt.model_validate(settings["prompt"]), "cot", shots=shown)
    assert "2 and 3 are 5.\nThe answer is 5.\n" in message["content"] and "The answer is 2." in message["content"]


def test_an_example_has_the_id_of_the_item_that_it_repeats():
    mapping = Mapping.model_validate(
        {"kind": "math", "fields": {"question": "q", "answer": "a", "answer_is": "number", "solution": "why"}}
    )
    repeated = to_item({"q": "What is 2 +  3?", "a": 5, "why": "Count."}, "here", mapping)
    assert repeated["solution"] == "Count."
    shown = items_to_show(TaskPrompt(instruction="Add.", shots=Shots.model_validate({"examples": EXAMPLES})), None)
    assert shown[0]["id"] == repeated["id"]
    with pytest.raises(UserError, match="the example 'What is 2 . 3.' is an item of the test split"):
        refuse_shown({repeated["id"]: repeated}, shown, "items.jsonl")


def test_a_solution_is_cut_out_of_a_field_by_a_pattern():
    fields = {
        "question": "question",
        "answer": {"field": "answer", "pattern": "#### (.+)"},
        "answer_is": "number",
        "solution": {"field": "answer", "pattern": "(.*?)\\s*####"},
    }
    mapping = Mapping.model_validate({"kind": "math", "fields": fields})
    row = {"question": "How many?", "answer": "First 3.\nThen 4.\n#### 7"}
    assert to_item(row, "here", mapping)["solution"] == "First 3.\nThen 4."


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("math", [{"question": "q"}], "shots.jsonl:1: not an example .*answer: Field required"),
        ("math", [{"question": "q", "answer": "1", "chain": "x"}], "shots.jsonl:1: .*chain: unknown key"),
        ("math", [EXAMPLES[0], {"question": "q", "answer": "five"}], "shots.jsonl:2: answer 'five' is no number"),
        ("math", [{"question": "q", "answer": "1", "choices": ["a", "b"]}], "shots.jsonl:1: has choices"),
        ("choice", [{"question": "q", "answer": "C", "choices": ["a", "b"]}], "answer 'C' is none of the letters A, B"),
        ("choice", [{"question": "q", "answer": "A"}], "needs choices"),
        ("math", [], "0 examples are there"),
    ],
)
def test_faulty_examples_are_refused_by_line(tmp_path, kind, rows, message):
    write_jsonl(tmp_path / "shots.jsonl", rows)
    with pytest.raises(UserError, match=message):
        resolved(Shots(file=str(tmp_path / "shots.jsonl")), kind, "benchmarks.add.shots")


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        (-1, "benchmarks.add.shots.number: .*greater than 0"),
        ("four", "benchmarks.add.shots: "),
        ({"seed": 1}, "benchmarks.add.shots: give their `number`"),
        ({"file": "a.jsonl", "examples": EXAMPLES}, "benchmarks.add.shots: has both `file` and `examples`"),
        ({"number": 2, "answer": "Done."}, "must have {answer} in it"),
        (1000, "benchmarks.add.shots: 1000 of .* training items leave none"),
    ],
)
def test_shots_that_cannot_be_are_refused(shots, message):
    config = copy.deepcopy(SMALL)
    config["benchmarks"]["add"]["splits"]["train"]["size"] = 50
    config["benchmarks"]["add"]["shots"] = shots
    with pytest.raises(UserError, match=message):
        Study.read(config)


def test_shots_of_a_benchmark_without_training_split_are_refused_and_none_are_none():
    config = copy.deepcopy(SMALL)
    config["study"]["tasks"] = ["pick"]
    del config["benchmarks"]["add"]["splits"]["train"]
    config["benchmarks"]["add"]["shots"] = 2
    with pytest.raises(UserError, match="benchmarks.add.shots: has no training split"):
        Study.read(config)
    config["benchmarks"]["add"]["shots"] = 0
    assert Study.read(config).benchmarks["add"].shots is None


# Stop strings.


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("It is 5.\nQuestion: next", ["\nQuestion:"], ("It is 5.", True)),
        ("It is 5.", ["\nQuestion:"], ("It is 5.", False)),
        ("a###b\n\nc", ["\n\n", "###"], ("a", True)),
        ("\nQuestion: next", ["\nQuestion:"], ("", True)),
        ("anything", [], ("anything", False)),
    ],
)
def test_a_text_ends_before_its_first_stop_string(text, stop, expected):
    assert cut(text, stop) == expected


@pytest.fixture(scope="module")
def parts(tiny_model):
    return load_model(tiny_model, "float32"), load_tokenizer(tiny_model)


def wanted(stop=(), temperature=1.0, samples=3):
    generation = Generation(max_tokens=24, temperature=temperature)
    texts = ["Box 010 is red today.", "Box 3 is blue today, and box 4 is not.", "red"]
    return [
        Request(f"q{i}-{k}", [{"role": "user", "content": text}], generation, seed_for(f"q{i}", 0, "cot", k), stop)
        for i, text in enumerate(texts)
        for k in range(samples)
    ]


def answers(engine, requests):
    return {r.id: c for batch in engine.batches(requests) for r, c in zip(batch, engine.generate(batch), strict=True)}


def frequent(tokenizer, completions) -> str:
    """A piece of text that spans tokens of several of the completions."""
    texts = [one.text for one in completions.values()]
    pieces = {text[i : i + 3] for text in texts for i in range(2, len(text) - 6)}
    pieces = {piece for piece in pieces if "�" not in piece}
    return max(sorted(pieces), key=lambda piece: sum(piece in text for text in texts))


@pytest.mark.model
@pytest.mark.parametrize("own_loop", [False, True])
def test_generation_ends_at_a_stop_string_and_is_the_same_before_it(parts, tiny_model, own_loop, monkeypatch):
    if own_loop:
        monkeypatch.setattr(local, "refusal", lambda *_: "as if it could not use the slots")
    model = load_model(tiny_model, "float32")  # a new one, with its own attention
    engine = TransformersEngine(model, parts[1], {"weights": "tiny"}, 4)
    free = answers(engine, wanted())
    stop = frequent(engine.tokenizer, free)
    stopped = answers(engine, wanted((stop, "never there")))
    hit = [name for name, one in free.items() if stop in one.text]
    assert hit
    for name, one in free.items():
        assert stopped[name].text == cut(one.text, [stop])[0].strip()
        if name in hit:
            assert stopped[name].finish_reason == "stop" and stopped[name].tokens <= one.tokens
        else:
            assert stopped[name] == one


@pytest.mark.model
def test_every_engine_that_holds_weights_ends_at_the_same_place(base_checkpoint, parts, monkeypatch):
    from selfrefine.engines.checkpoint_engines import open_checkpoint_engine
    from selfrefine.schema.generation import Answering

    monkeypatch.syspath_prepend(REPOSITORY / "tests/stand_in")
    engine = TransformersEngine(*parts, {"weights": "tiny"}, 4)
    stop = frequent(engine.tokenizer, answers(engine, wanted(temperature=0, samples=1)))
    requests = wanted((stop,), 0, 1)
    other = open_checkpoint_engine(base_checkpoint, Answering(engine="vllm", dtype="float32", batch_size=None), 0.5)
    assert answers(other, requests) == answers(engine, requests)


def test_a_server_is_given_four_stop_strings_and_cut_at_all():
    request = Request("q", [{"role": "user", "content": "Why?"}], Generation(), 0, ("1", "2", "3", "4", "\nQuestion:"))
    assert body_of(request, "m", {})["stop"] == ["1", "2", "3", "4"]
    body = {"choices": [{"message": {"content": "So A.\nQuestion: and"}, "finish_reason": "length"}]}
    assert answer_of(request, body)["text"] == "So A." and answer_of(request, body)["finish_reason"] == "stop"
    assert "stop" not in body_of(Request("q", request.messages, Generation()), "m", {})


def test_a_recording_without_stop_strings_is_cut_at_them(tmp_path):
    plain = Request("q", [{"role": "user", "content": "Why?"}], Generation())
    row = {"key": plain.key, "id": "q", "finish_reason": "length", "tokens": 9, "prompt_tokens": 3}
    write_jsonl(tmp_path / "kept.jsonl", [{"recording": {}}, row | {"text": "So A.\nQuestion: and"}])
    engine = RecordedEngine(tmp_path / "kept.jsonl")
    stopping = Request("q", plain.messages, Generation(), 0, ("\nQuestion:",))
    assert engine.generate([stopping]) == [Completion("So A.", "stop", 9, 3)]
    assert stopping.key != plain.key and engine.generate([plain])[0].text.endswith("and")


# The whole way.


@pytest.mark.model
def test_a_study_asks_with_its_own_words_examples_and_stop_strings(tiny_model, tmp_path):
    path, config = make_study(tmp_path, tiny_model)
    boxes, far = config["benchmarks"]["boxes"], config["benchmarks"]["far"]
    boxes |= {"stop": ["\nQuestion:"]}
    far |= {"shots": 2, "prompt": {"instruction": "Pick one of {labels}.", "cot": "Now:"}, "stop": ["\nQuestion:"]}
    config["study"] |= {"arms": ["baseline", "instruct", "refine"]}
    config["teachers"]["oracle"] = {
        "family": "oracle",
        "engine": "transformers",
        "model": "tiny",
        "dtype": "float32",
        "generation": {"max_tokens": 4},
    }
    config["demonstrations"] = {"keep_wrong": True, "keep_cut": True}
    config["benchmarks"]["boxes"]["shots"] = {"number": 1, "seed": 3}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(tmp_path)
    asked = read_jsonl(artifact(tmp_path, "export_task/far") / "docs.jsonl")
    assert all(row["prompt"].startswith("Pick one of A, B.\nQuestion: ") for row in asked)
    assert all(row["prompt"].count("Question: ") == 3 and row["prompt"].endswith("\nNow:") for row in asked)
    training = read_items(artifact(tmp_path, "prepare/far-train") / "items.jsonl")
    questions = {one["question"] for one in training.values()}
    assert all(sum(question in row["prompt"] for question in questions) == 2 for row in asked)
    task = (artifact(tmp_path, "export_task/far") / "far.yaml").read_text()
    assert yaml.safe_load(task.replace("!function ", ""))["generation_kwargs"]["until"] == ["\nQuestion:"]
    for stage in ("teach/oracle/boxes-train-cot", "sample/tiny/oracle-boxes-100-seed0/boxes-100-seed0"):
        record = read_json(artifact(tmp_path, stage) / "record.json")
        assert record["settings"]["stop"] == ["\nQuestion:"]
        assert record["settings"]["prompt"]["shots"]["number"] == 1
    rows = read_jsonl(artifact(tmp_path, "evaluate/tiny/base/boxes") / "samples.jsonl")
    assert len(rows) == 20
    prompts = (tmp_path / "results/tiny/tables/paper/prompts.md").read_text()
    assert "Pick one of A, B." in prompts and INSTRUCTION.replace("{labels}", "A, B") in prompts


@pytest.mark.model
def test_an_example_of_the_test_split_stops_the_export(tiny_model, tmp_path):
    path, config = make_study(tmp_path, tiny_model)
    snakemake(tmp_path, "--until", "export_task")
    row = read_jsonl(artifact(tmp_path, "prepare/far-test") / "items.jsonl")[0]
    example = {name: row[name] for name in ("question", "choices", "answer")}
    config["benchmarks"]["far"]["shots"] = {"examples": [example]}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    outcome = run(
        *("snakemake", "--until", "export_task", "--cores", "2", "--configfile", "config/tiny.yaml"),
        cwd=tmp_path,
        check=False,
    )
    logs = "".join(log.read_text() for log in tmp_path.glob("logs/export_task/far/*.log"))
    assert outcome.returncode and "is an item of the test split; remove it" in logs


def test_a_file_of_examples_is_found_beside_the_study_and_its_content_is_part_of_the_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EXAMPLES))
    study = study_with(shots={"file": "shots.jsonl"}).located(REPOSITORY)
    before = stage_settings.settings(study, "export_task", task="add")
    (tmp_path / "shots.jsonl").write_text(json.dumps(EXAMPLES[0]) + "\n")
    assert stage_settings.settings(study, "export_task", task="add") != before
    (tmp_path / "shots.jsonl").unlink()
    with pytest.raises(UserError, match="benchmarks.add.shots.file: there is no file shots.jsonl"):
        stage_settings.settings(study, "export_task", task="add")


# Answer phrases.


PHRASES = {
    "default": [
        "The answer is {}.",
        "#### {}",
        "\\boxed{{{}}}",
        "Answer: {}",
        "<answer>{}</answer>",
        "Final answer\n{}",
    ],
    r"答案\s*(?:[是为]\s*[:：]?|[:：])": ["答案是{}。", "答案是：{}", "答案：{}", "答案为 {}"],
    r"\bréponse\s*(?:finale\s*)?(?:est\b|:)": ["La réponse est {}.", "Réponse finale : {}"],
    r"\bAntwort\s*(?:ist\b|lautet\b|:)": ["Die Antwort ist {}.", "Antwort: {}", "ANTWORT LAUTET {}"],
    r"答え\s*(?:は|[:：])": ["答えは {} です。", "答えは{}です。", "答え：{}"],
    r"\brespuesta\s*(?:final\s*)?(?:es\b|:)": ["La respuesta es {}.", "Respuesta final: {}"],
}


@pytest.mark.parametrize(("phrase", "text"), [(phrase, text) for phrase, texts in PHRASES.items() for text in texts])
def test_an_answer_is_read_behind_its_own_phrase_alone(phrase, text):
    number, label = text.format(12), text.format("B")
    assert extract(number, "math", [], phrases=["default", phrase]) == "12"
    assert extract(number, "math", [], phrases=[phrase]) == "12"
    assert extract(label, "choice", ["ja", "nein"], phrases=[phrase]) == "B"
    assert extract(number, "math", [], phrases=["never this:"]) is None
    assert is_chain("Two and three make five, so we count. " + number, [phrase])


def test_the_documented_phrases_are_the_tested_ones():
    page = (REPOSITORY / "docs/evaluation.md").read_text().replace("\\|", "|")
    assert all(phrase in page for phrase in (*PHRASES, *extraction.PHRASES))


def test_phrases_of_a_benchmark_go_before_the_general_ones():
    config = copy.deepcopy(SMALL)
    config["answer_phrases"] = ["default", "Ergebnis:"]
    config["benchmarks"]["add"]["answer_phrases"] = ["Antwort:"]
    study = Study.read(config)
    found = {
        task: stage_settings.settings(study, "export_task", task=task)["answer_phrases"] for task in ("add", "pick")
    }
    assert found == {"add": ["Antwort:"], "pick": ["default", "Ergebnis:"]}


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        (["(open"], "answer_phrases: '\\(open' is not a regular expression"),
        (["x", "a*"], "answer_phrases: 'a\\*' matches the empty text"),
        (["a", "(?i)b"], "answer_phrases: '\\(\\?i\\)b' is not a regular expression"),
        ([], "answer_phrases: "),
    ],
)
def test_phrases_that_cannot_be_are_refused(phrases, message):
    with pytest.raises(UserError, match=message):
        Study.read(copy.deepcopy(SMALL) | {"answer_phrases": phrases})


def test_an_exported_task_carries_its_phrases(tmp_path):
    phrases = ["Antwort:"]
    settings = ExportTaskSettings(
        task="sums", prompt=TaskPrompt(instruction="Rechne."), answer_phrases=phrases, stop=["\nFrage:"]
    )
    export_task({"q": item("q", "12")}, settings, tmp_path)
    (document,) = read_jsonl(tmp_path / "docs.jsonl")
    specification = importlib.util.spec_from_file_location("answers_of_task", tmp_path / "answers.py")
    answers_of_task = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(answers_of_task)
    assert answers_of_task.process_results(document, ["Antwort: 12"])["strict"] == 1
    assert answers_of_task.process_results(document, ["The answer is 12."])["strict"] == 0
    usual = ExportTaskSettings(task="sums", prompt=TaskPrompt(instruction="Add."))
    export_task({"q": item("q", "12")}, usual, tmp_path / "usual")
    assert "phrases" not in read_jsonl(tmp_path / "usual/docs.jsonl")[0]
