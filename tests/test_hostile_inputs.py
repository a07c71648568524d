"""Further inputs of real users, by kind: settings, leaks, files, answers, models, and how Snakemake is called."""

import json
import shutil
import unicodedata
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml

import test_mapping
import test_study
from conftest import artifact, make_study, snakemake, target
from selfrefine.data.duplicates import near_duplicates
from selfrefine.data.raw_rows import read_raw_rows
from selfrefine.data.shots import refuse_shown
from selfrefine.data.splits import prepare
from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.likelihoods import Pair, of_batch
from selfrefine.engines.openai.bodies import answer_of
from selfrefine.engines.recorded import RecordedEngine
from selfrefine.errors import UserError
from selfrefine.models.suitability import check_model
from selfrefine.models.weight_files import check_files
from selfrefine.schema.generation import Generation
from selfrefine.schema.model_use import ModelUse
from selfrefine.schema.source import Source
from selfrefine.study.design import Study
from selfrefine.study.idle_settings import idle_settings
from selfrefine.study.model_uses import uses_of
from selfrefine.study.open_study import ROOT, read_configuration

SMALL = test_study.SMALL


def put(path: str, value) -> dict:
    return test_study.changed(SMALL, path, value)


# Settings that are no number.

FLOATS = (
    *("instruct/epochs", "instruct/weight_decay", "instruct/max_grad_norm", "instruct/learning_rate"),
    *("refine/beta", "refine/epochs", "recipes/cot/objective/beta", "recipes/cot/objective/nll"),
    *("sampling/generation/temperature", "evaluation/temperature", "models/small/parameters"),
    *("students/ant/refine/learning_rate", "recipes/cot/refine/learning_rate", "statistics/margin", "validation"),
)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), True], ids=str)
@pytest.mark.parametrize("path", FLOATS)
def test_a_number_is_finite_and_no_truth_value(path, value):
    with pytest.raises(UserError, match=path.rpartition("/")[2] + ".*number"):
        Study.read(put(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("study/seeds", [True], "study.seeds: Input should be a number, and YAML reads it as true or false"),
        ("study/shares", [True], "study.shares: Input should be a number"),
        ("benchmarks/add/splits/test/size", True, "splits.test.size: Input should be a number"),
        ("prompts/math/instruction", "Add \ud83d.", "prompts.math.instruction: has half a character"),
        ("teachers/owl/request", {"math": "\udc00"}, "has half a character"),
    ],
)
def test_what_yaml_reads_otherwise_is_refused(path, value, message):
    with pytest.raises(UserError, match=message):
        Study.read(put(path, value))


@pytest.mark.parametrize("written", [".nan", "2024-01-01", "[.inf]"])
def test_fields_that_no_server_can_be_sent_are_refused(written):
    served = {"family": "bird", "engine": "openai", "served": "owl-1", "extra": {"field": yaml.safe_load(written)}}
    with pytest.raises(UserError, match="teachers.owl.extra: field: .* cannot be sent as JSON"):
        Study.read(put("teachers/owl", served))


@pytest.mark.parametrize(
    "sampling", [{"generation": {"max_tokens": 64}}, {"cot": 1, "plain": 2, "generation": {"temperature": 0}}], ids=str
)
def test_several_paths_at_temperature_0_are_refused(sampling):
    with pytest.raises(UserError, match=r"sampling: (cot|plain): . paths at temperature 0 would be the same"):
        Study.read(put("sampling", sampling))
    assert Study.read(put("sampling", {"cot": 1, "plain": 1, "generation": {"temperature": 0}}))


IDLE = {
    "evaluation.top_p": [("evaluation", {"top_p": 0.5})],
    "answer_phrases": [("extractor", "legacy"), ("answer_phrases", ["Answer:"])],
    "sampling.hint": [("sampling", {"hint": "It is {answer}."})],
    "sampling.rationales": [("sampling", {"rationales": 1})],
    "refine.warmup_steps": [("refine", {"schedule": "constant", "warmup_steps": 5})],
    "students.ant.instruct.warmup": [("students/ant/instruct", {"schedule": "constant", "warmup": 0.5})],
    "instruct.lora": [("instruct", {"method": "full", "lora": {"r": 4}})],
    "teachers.owl.revision": [("teachers/owl/revision", "b")],
}


@pytest.mark.parametrize("key", IDLE)
def test_a_setting_that_changes_nothing_is_told(key):
    config = SMALL
    for path, value in IDLE[key]:
        config = test_study.changed(config, path, value)
    assert [line.partition(": ")[0] for line in idle_settings(Study.read(config))] == [key]
    assert not list(idle_settings(Study.read(SMALL)))


@pytest.mark.parametrize("name", ["config", "laptop", "paper"])
def test_the_shipped_studies_have_no_setting_that_changes_nothing(name):
    study = Study.read(read_configuration([ROOT / f"config/{name}.yaml"]))
    assert not list(idle_settings(study))


# Leaks.

ENGLISH = "Tom has 12 apples and gives 5 of them to Ann on Monday before school, how many are left for Tom?"
KOREAN = "철수는 사과 12개를 가지고 있고 영희에게 5개를 주었습니다. 철수에게 남은 사과는 몇 개입니까?"
ARABIC = "كان لدى أحمد 12 تفاحة وأعطى 5 منها إلى سارة، كم تفاحة بقيت معه؟"
HINDI = "राम के पास 12 सेब हैं और उसने 5 सेब सीता को दिए, अब उसके पास कितने सेब बचे हैं?"
SAME = {
    "joiner": (ENGLISH, ENGLISH.replace("apples", "app\u200bles")),
    "soft hyphen": (ENGLISH, ENGLISH.replace("apples", "app\u00adles")),
    "entity": ("Tom &amp; Ann have 3 cats, how many legs?", "Tom & Ann have 3 cats, how many legs?"),
    "thousands": ("He has 1,200 dollars, how many euros are these?", "He has 1200 dollars, how many euros are these?"),
    "dashes": ("A well-known man - he was tall, was he not?", "A well–known man — he was tall, was he not?"),
    "sharp s": ("Wie groß ist die Straße vor dem Haus?", "Wie gross ist die Strasse vor dem Haus?"),
    "dotted i": ("İstanbul'da kaç kişi yaşıyor?", "istanbul'da kaç kişi yaşıyor?"),
    "Korean, a word more": (KOREAN, KOREAN.replace("남은", "지금 남은")),
    "Korean, without spaces": (KOREAN, KOREAN.replace(" ", "")),
    "Arabic vowels": (ARABIC, ARABIC.replace("كان", "كَانَ").replace("تفاحة", "تُفَّاحَة").replace("كم", "كَمْ")),
    "Arabic digits": (ARABIC, ARABIC.replace("12", "١٢").replace("5", "٥")),
    "Hebrew vowels": ("לדני היו 12 תפוחים, כמה נשארו?", "לְדָנִי הָיוּ 12 תַּפּוּחִים, כמה נשארו?"),
    "Thai digits": ("สมชายมีแอปเปิล 12 ผล", "สมชายมีแอปเปิล ๑๒ ผล"),
    "Hindi digits": (HINDI, HINDI.replace("12", "१२").replace("5", "५")),
}
OTHER = {
    "numbers": (ENGLISH, ENGLISH.replace("12", "14").replace("5", "6")),
    "Korean numbers": (KOREAN, KOREAN.replace("12", "17").replace("5", "8")),
    "operators": ("What is 12 + 4?", "What is 12 - 4?"),
    "products": ("Compute 7 * 8.", "Compute 7 / 8."),
    "formulas": ("Solve x^2 + 3x = 4 for x.", "Solve x^2 − 3x = 4 for x."),
    "comparisons": ("Is 3 < 5 true?", "Is 3 > 5 true?"),
    "minus": ("What is -3 plus 8?", "What is 3 plus 8?"),
    "pictures": ("What movie does this emoji describe? 👸👠🕛", "What movie does this emoji describe? 🦁👑🌍"),
    "signs alone": ("???", "!!!"),
}


def is_found(test: str, train: str) -> bool:
    tested, trained = ({"id": "train", "question": text, "choices": []} for text in (test, train))
    return near_duplicates([trained], [tested], 0.8) == {"train"}


@pytest.mark.parametrize("name", SAME)
def test_a_question_written_in_another_way_is_found(name):
    assert is_found(*SAME[name])


@pytest.mark.parametrize("name", OTHER)
def test_a_question_of_other_numbers_or_signs_is_another(name):
    assert not is_found(*OTHER[name])


def test_an_example_that_is_a_test_item_in_other_letters_is_refused(tmp_path):
    item = {"id": "1", "kind": "choice", "question": "Où est Zoë?", "choices": ["Ici", "Là"], "answer": "A"}
    example = item | {"id": "2", "question": "OÙ EST ZOE\u0308?", "choices": ["Là", "Ici"], "answer": "B"}
    with pytest.raises(UserError, match="is an item of the test split"):
        refuse_shown({"1": item}, [example], tmp_path)
    refuse_shown({"1": item}, [example | {"question": "Qui est Zoë?"}], tmp_path)


# Items of no one answer, or of none that is seen.


def rows_of(*rows: dict, tmp_path) -> tuple[list[dict], dict]:
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps({"q": "Who?", "c": ["x", "y"], "a": "A"} | row) + "\n" for row in rows))
    return prepare(path, test_mapping.settings(test_mapping.CHOICE, drop_unmapped=True))


@pytest.mark.parametrize(
    ("rows", "repeated", "unclear"),
    [
        ([{}, {"c": ["y", "x"], "a": "B"}], 1, 0),
        ([{}, {"q": "WHO?"}], 1, 0),
        ([{}, {"q": unicodedata.normalize("NFKC", "Ｗｈｏ？")}], 1, 0),
        ([{}, {"c": ["y", "x"], "a": "A"}], 0, 2),
        ([{"c": ["x", "x", "y"]}], 0, 1),
        ([{"c": ["x", "y", "y"]}], 0, 0),
    ],
)
def test_one_question_has_one_answer(rows, repeated, unclear, tmp_path):
    items, counts = rows_of({"q": "Where?"}, *rows, tmp_path=tmp_path)
    dropped = counts["dropped"]
    assert (dropped["repeated"], dropped["contradictory_answers"]) == (repeated, unclear)
    assert len(items) == 1 + len(rows) - repeated - unclear


@pytest.mark.parametrize("nothing", ["\u200b", "\u00a0\ufeff", "\u2060 \u200d"])
def test_what_is_not_seen_is_empty(nothing, tmp_path):
    _, counts = rows_of({}, {"q": "Where?", "c": [nothing, "y"]}, tmp_path=tmp_path)
    assert counts["dropped"]["answer_unmapped"] == 1
    with pytest.raises(UserError, match="raw.jsonl:1: the question is empty"):
        rows_of({"q": nothing}, tmp_path=tmp_path)


def test_golds_of_the_items_that_are_kept_must_move(tmp_path):
    rows = [{"q": f"Who is {number}?"} for number in range(20)]
    with pytest.raises(UserError, match="shuffle: true"):
        rows_of(*rows, {"q": "Who is 7?", "a": "B"}, tmp_path=tmp_path)


# Files that are not what their name says.

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7\nsize 2\n"
OTHERS = {
    "pointer": (POINTER, "is a pointer of git-lfs"),
    "workbook": (b"PK\x03\x04\x14\0", "is a zip archive or an Excel workbook"),
    "UTF-16": ("q,a\n".encode("utf-16"), "is in UTF-16; save it as UTF-8"),
    "page": (b"\n<!DOCTYPE html>\n<html>404</html>", "is a web page, not the file itself"),
}


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_called_that(kind, ending, tmp_path):
    content, message = OTHERS[kind]
    path = tmp_path / f"raw.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_raw_rows(path)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '[{"q": ' + "9" * 5000 + "}]"], ids=["nested", "digits"])
def test_json_that_python_does_not_read_is_refused_by_file(text, ending, tmp_path):
    path = tmp_path / f"raw.{ending}"
    path.write_text(text)
    with pytest.raises(UserError, match=f"raw.{ending}.*cannot be read"):
        read_raw_rows(path)


def test_an_array_under_the_ending_of_json_lines_and_long_values_of_a_table_are_read(tmp_path):
    (tmp_path / "raw.jsonl").write_text(json.dumps([{"q": 1}, {"q": 2}], indent=1))
    assert [row for _, row in read_raw_rows(tmp_path / "raw.jsonl")] == [{"q": 1}, {"q": 2}]
    (tmp_path / "raw.csv").write_text("q\n" + "x" * 200_000 + "\n")
    assert len(read_raw_rows(tmp_path / "raw.csv")[0][1]["q"]) == 200_000


def test_a_float_of_32_bits_is_the_number_that_was_written(tmp_path):
    numbers = pyarrow.array([0.1, None, 27.93], pyarrow.float32())
    pyarrow.parquet.write_table(pyarrow.table({"a": numbers}), tmp_path / "raw.parquet")
    assert [row["a"] for _, row in read_raw_rows(tmp_path / "raw.parquet")] == [0.1, None, 27.93]


def test_where_that_leaves_nothing_is_named(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_text('{"q": "Who?", "c": ["x", "y"], "a": "A"}\n')
    with pytest.raises(UserError, match="1 are left out by `where`.*check the benchmark's `where`"):
        prepare(path, test_mapping.settings(test_mapping.CHOICE, where="level == `5`"))


# Answers that no file can hold.

HALF = "Yes \ud83d. The answer is A."
WHOLE = "Yes \ufffd. The answer is A."


def test_half_a_character_in_an_answer_is_replaced():
    request = Request("a", [{"role": "user", "content": "2 + 2?"}], Generation(max_tokens=8))
    for content in (HALF, [{"type": "text", "text": HALF}]):
        body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "id": "\udfff"}
        answer = answer_of(request, body)
        assert (answer["text"], answer["response"]) == (WHOLE, "\ufffd")
    row = {"text": HALF + "\ud83d\ude00", "finish_reason": "stop", "tokens": 1, "prompt_tokens": 1}
    assert Completion.of(row).text == WHOLE + "😀"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (["It is ", "4."], "It is 4."),
        ([{"type": "thinking", "thinking": "2 + 2"}, {"type": "text", "text": "4"}, {"text": None}], "4"),
        ([{"text": {"value": "4"}}], ""),
    ],
)
def test_contents_in_parts_are_joined(content, text):
    request = Request("a", [{"role": "user", "content": "2 + 2?"}], Generation(max_tokens=8))
    answer = answer_of(request, {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})
    assert answer["text"] == text


@pytest.mark.parametrize("usage", [{"prompt_tokens": 3, "completion_tokens": -1}, {"prompt_tokens": True}, [], "9"])
def test_a_usage_that_counts_nothing_is_estimated(usage):
    request = Request("a", [{"role": "user", "content": "2 + 2?"}], Generation(max_tokens=8))
    body = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}], "usage": usage}
    answer = answer_of(request, body)
    assert not answer["counted"] and answer["tokens"] > 0 and answer["prompt_tokens"] > 0


@pytest.mark.model
def test_a_recording_with_half_a_character_is_taught_from(tmp_path, tiny_model):
    make_study(tmp_path, tiny_model)
    path = tmp_path / "oracle.jsonl"
    path.write_text(path.read_text().replace("The answer is A.", "\\ud83d The answer is A."))
    place = "demonstrate/oracle/boxes"
    snakemake(tmp_path, target(tmp_path, place))
    assert "\ufffd The answer is A." in (artifact(tmp_path, place) / "demonstrations.jsonl").read_text()


def test_a_line_that_is_no_recorded_completion_is_named(tmp_path):
    path = tmp_path / "recording.jsonl"
    path.write_text('{"recording": {}}\n{"key": "a", "text": null, "finish_reason": "stop", "tokens": 1}\n')
    with pytest.raises(UserError, match="recording.jsonl:2: not a recorded completion"):
        RecordedEngine(path)


@pytest.mark.model
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_likelihoods_of_a_model_whose_logits_are_not_finite_are_none(value, tiny_model):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    pairs = [Pair((5, 6, 7), (8, 9))]
    assert of_batch(model, pairs, 0, None)[0].logprob < 0
    with torch.no_grad():
        model.get_input_embeddings().weight[20] = value
    with pytest.raises(UserError, match="logits are not finite"):
        of_batch(model, pairs, 0, None)


# Models whose files do not belong together.


def spoil(kind: str, folder: Path) -> None:
    """Makes of a whole model one that transformers would complete at random, or read as another one."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    query = "model.layers.0.self_attn.q_proj.weight"
    if kind == "missing":
        del weights[query]
    elif kind == "shape":
        weights[query] = weights[query][:32].clone()
    elif kind == "names":
        weights = {f"other.{name}": weight for name, weight in weights.items()}
    elif kind == "adapter":
        (folder / "adapter_config.json").write_text("{}")
    elif kind == "index":
        (folder / "model.safetensors.index.json").write_text("<html>")
    elif kind == "other file":
        (folder / "model.safetensors").rename(folder / "optimizer.safetensors")
        return
    else:
        change = {"layers": {"num_hidden_layers": 3}, "quantised": {"quantization_config": {"quant_method": "gptq"}}}
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change[kind]))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


UNFIT = {
    "missing": "missing are model.layers.0.self_attn.q_proj.weight;",
    "shape": r"in another shape are model.layers.0.self_attn.q_proj.weight \[32, 64\], not \[64, 64\]",
    "names": "missing are .* and [0-9]+ more",
    "layers": "missing are model.layers.2",
    "adapter": "has an adapter beside the weights",
    "index": "model.safetensors.index.json is no index of weights",
    "other file": "its weights cannot be read",
    "quantised": "students.s: .* its weights are quantised",
}


@pytest.fixture
def copied(tiny_model, tmp_path) -> Path:
    folder = tmp_path / "copied"
    shutil.copytree(tiny_model, folder)
    return folder


def look_at(folder: Path, **use) -> None:
    check_files(folder, "file:mine")
    check_model(folder, "file:mine", [ModelUse(**{"key": "students.s", **use})])


@pytest.mark.model
@pytest.mark.parametrize("kind", UNFIT)
def test_a_model_that_would_be_completed_at_random_is_refused_when_it_is_fetched(kind, copied):
    look_at(copied)
    spoil(kind, copied)
    with pytest.raises(UserError, match=UNFIT[kind]) as caught:
        look_at(copied)
    assert "file:mine" in str(caught.value) and "\n" not in str(caught.value)


TURN = "{% for m in messages %}" + "{{ m.role }}: WHAT<|im_end|>{% endfor %}assistant:"


@pytest.mark.model
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("{{ m.content | e }}", "students.s: .*changes the user message, or leaves it out"),
        ("{{ m.content | tojson }}", "changes the user message"),
        ("{{ m.content[:40] }}", "changes the user message"),
        ("{{ m.content if m.role == 'assistant' }}", "changes the user message"),
        ("{{ m.content if m.role != 'system' }}", "students.s.system: .*changes the system message.*`system: null`"),
        ("{{ range(10000) | random }}{{ m.content }}", "chat template"),
        ("{{ m.content | trim }}", None),
    ],
)
def test_a_template_puts_what_is_asked_into_the_prompt(what, message, copied):
    use = {"chat_template": TURN.replace("WHAT", what), "system": "Be brief."}
    if message is None:
        look_at(copied, **use)
        return
    with pytest.raises(UserError, match=message):
        look_at(copied, **use)


# Names, and what recipes override.


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("students/Ant", SMALL["students"]["ant"], "students: 'Ant' and 'ant' differ in case alone"),
        ("benchmarks/ADD", SMALL["benchmarks"]["add"], "benchmarks: 'ADD' and 'add' differ in case alone"),
        ("study/name", "long-" * 60, "study.name: has 300 characters"),
        ("study/name", "x" * 81, "study.name: has 81 characters"),
    ],
)
def test_names_that_folders_cannot_have_are_refused(path, value, message):
    with pytest.raises(UserError, match=message):
        Study.read(put(path, value))


def test_a_recipes_targets_are_looked_for_in_the_students_model():
    study = Study.read(put("recipes/cot/refine", {"lora": {"targets": ["q_prj"]}}))
    (use,) = uses_of(study, study.students["ant"].model)
    assert use.targets == {"recipes.cot.refine.lora.targets": ["q_prj"]}


@pytest.mark.model
def test_a_task_of_lm_eval_needs_no_file_of_its_own(tmp_path, tiny_model):
    path, config = make_study(tmp_path, tiny_model)
    config["study"]["evaluate"].append("lm_eval:hellaswag")
    path.write_text(yaml.safe_dump(config))
    assert "needs the data set" in snakemake(tmp_path, "-n").stderr


# How Snakemake is called.


def test_the_signs_of_an_address_are_part_of_a_local_files_name():
    assert Source.model_construct(source="file:my data/mine #1?.csv.gz").suffix == ".csv.gz"
    assert Source.model_construct(source="https://x.org/mine.csv?download=1#top").suffix == ".csv"


@pytest.mark.model
def test_deleting_all_output_deletes_the_weights_too(tmp_path, tiny_model):
    make_study(tmp_path, tiny_model)
    snakemake(tmp_path, target(tmp_path, "fetch_model/tiny"))
    snakemake(tmp_path, "--delete-all-output", "--dry-run")
    assert list(tmp_path.glob("results/**/*.safetensors"))
    snakemake(tmp_path, "--delete-all-output")
    assert not list(tmp_path.glob("results/**/*.safetensors"))
    assert (tmp_path / "boxes.jsonl").exists()
