"""The configuration: what is refused, the checkpoints and cells of a design, the settings of each stage."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from selfrefine.errors import UserError
from selfrefine.store.hashing import canonical_json
from selfrefine.store.locations import FILES, STORE
from selfrefine.study import stage_settings
from selfrefine.study.artifact import Artifact
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.checkpoint_names import origin_of, refinements_of, student_of, teacher_of
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts

CONFIG = Path(__file__).parent.parent / "config"


def read_yaml(*names: str) -> dict:
    """The files merged as Snakemake merges them: mappings key by key, anything else replaced."""
    merged: dict = {}
    for name in names:
        update_config(merged, yaml.safe_load((CONFIG / name).read_text()))
    return merged


SHIPPED = read_yaml("benchmarks.yaml", "recipes.yaml", "config.yaml")
STUDENT, TEACHER = "smollm2-135m", "qwen2.5-coder-1.5b"

SMALL = {
    "study": {
        "students": ["ant"],
        "teachers": ["owl"],
        "tasks": ["add", "pick"],
        "evaluate": ["add", "pick"],
        "arms": ["baseline", "instruct", "refine", "cross", "refine-only"],
        "recipes": ["cot"],
        "shares": [50, 100],
        "seeds": [0, 7],
    },
    "models": {
        "tiny": {"source": "file:tiny", "licence": "none"},
        "large": {"source": "file:large", "licence": "none"},
    },
    "students": {
        "ant": {"model": "tiny", "family": "insect", "instruct": {"epochs": 2}},
        "bee": {"model": "tiny", "family": "insect"},
    },
    "teachers": {"owl": {"model": "large", "family": "bird", "engine": "transformers"}},
    "benchmarks": {
        "add": {
            "title": "Sums",
            "kind": "math",
            "files": {"all": {"source": "file:sums.jsonl", "licence": "none"}},
            "fields": {"question": "q", "answer": "a", "answer_is": "number"},
            "splits": {"train": {"file": "all", "size": 8}, "test": {"file": "all", "size": 4}},
        },
        "pick": {
            "title": "Picks",
            "kind": "choice",
            "files": {"all": {"source": "file:picks.jsonl", "licence": "none"}},
            "fields": {"question": "q", "choices": "c", "answer": "a", "answer_is": "label"},
            "splits": {"train": {"file": "all", "size": 8}, "test": {"file": "all", "size": 4}},
        },
    },
    "prompts": {"math": {"instruction": "Compute."}, "choice": {"instruction": "Choose from {labels}."}},
    "recipes": {
        "cot": {"chosen": {"style": "cot", "verdict": "correct"}, "rejected": {"style": "plain"}},
        "answer": {"chosen": {"source": "teacher"}, "rejected": {"style": "plain", "verdict": "wrong"}},
    },
    "instruct": {"learning_rate": 1e-5, "lora": {"r": 4, "alpha": 8}},
}


def changed(config: dict, path: str, value) -> dict:
    """A copy of a configuration with one place changed; "/" divides the keys, as names have dots."""
    config = copy.deepcopy(config)
    *sections, last = path.split("/")
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return config


def finals(config: dict) -> FinalArtifacts:
    """What a study comes to, where each local file holds its own name."""
    return FinalArtifacts(Artifacts(Study.read(config), lambda stage: "version 1", lambda rule: "", str))


def place(one: Artifact | str) -> str:
    """Where an artifact or a file of one lies in the store, but for the key."""
    if isinstance(one, Artifact):
        return "/".join((one.stage, *one.names))
    *names, _, file = Path(one).relative_to(STORE).parts
    return "/".join((*names, file))


def refused(config: dict) -> str:
    with pytest.raises(UserError) as caught:
        Study.read(config)
    message = str(caught.value)
    assert message.startswith("configuration: ")
    assert "\n" not in message
    return message.removeprefix("configuration: ")


def test_shipped_configuration_is_valid():
    study = Study.read(SHIPPED)
    assert study.study.arms == ["baseline", "instruct", "refine"]
    assert [row["checkpoint"] for row in study.checkpoints()] == [
        "smollm2-135m/base",
        "smollm2-135m/instruct/qwen2.5-coder-1.5b/asdiv/100/0",
        "smollm2-135m/instruct/qwen2.5-coder-1.5b/asdiv/100/0/refine/asdiv/cot/100/0",
    ]


def test_where_gpus_are_known_the_sizes_of_loaded_models_must_be():
    gpus = changed(SMALL, "cluster", {"gpu_memory": 24})
    message = "models.large.parameters: is missing; cluster.gpu_memory is set"
    assert refused(changed(gpus, "models/tiny/parameters", 1)).startswith(message)
    assert refused(changed(gpus, "models/large/parameters", 1)).startswith(message.replace("large", "tiny"))
    served = {"family": "bird", "engine": "openai", "served": "owl", "model": "large"}
    Study.read(changed(changed(gpus, "models/tiny/parameters", 1), "teachers/owl", served))
    for key, value in (("gpu_memory", 0), ("gpus_per_node", 0), ("longest_hours", -1), ("time_factor", 0.5)):
        assert f"cluster.{key}: Input should be greater than" in refused(changed(SHIPPED, f"cluster/{key}", value))


def test_the_written_configuration_tells_nothing_of_the_cluster():
    written = Study.read(SHIPPED).yaml()
    other = changed(SHIPPED, "cluster", {"gpu_memory": 24, "gpus_per_node": 8})
    assert Study.read(changed(other, f"models/{STUDENT}/parameters", 0.2)).yaml() == written
    assert "cluster" not in written and "parameters" not in written


def test_shipped_catalogues_can_be_used_whole():
    config = read_yaml("benchmarks.yaml", "recipes.yaml", "config.yaml")
    both = [name for name, entry in config["benchmarks"].items() if set(entry["splits"]) == {"train", "test"}]
    assert len(both) == 19
    # Some stand there twice, as one package has them and as the hub does; a study takes one of the two.
    for name, entry in config["benchmarks"].items():
        entry["title"] = name
    design = {
        "tasks": both,
        "evaluate": list(config["benchmarks"]),
        "recipes": [*config["recipes"], *config["schedules"]],
    }
    config["study"] |= design | {"arms": ["baseline", "instruct", "refine", "cross"]}
    with pytest.raises(UserError, match="sampling.rationales: is 0, but recipe 'star-round' draws on rationales"):
        Study.read(config)
    config["sampling"]["rationales"] = 1
    refined = 19 * 19 * (len(config["recipes"]) + len(config["schedules"]))
    assert len(Study.read(config).checkpoints()) == 1 + 19 + refined


UNKNOWN_KEYS = [
    ("studdy", "studdy", "study"),
    ("thread", "thread", "threads"),
    ("engin", "engin", "engine"),
    ("vllm/memry", "vllm.memry", "memory"),
    ("study/student", "study.student", "students"),
    (f"models/{STUDENT}/sha265", f"models.{STUDENT}.sha265", "sha256"),
    (f"students/{STUDENT}/sistem", f"students.{STUDENT}.sistem", "system"),
    (f"students/{STUDENT}/instruct/learnig_rate", f"students.{STUDENT}.instruct: learnig_rate", "learning_rate"),
    (f"students/{STUDENT}/refine/lora/alhpa", f"students.{STUDENT}.refine: lora.alhpa", "alpha"),
    (f"teachers/{TEACHER}/modle", f"teachers.{TEACHER}.modle", "model"),
    (f"teachers/{TEACHER}/generation/max_token", f"teachers.{TEACHER}.generation.max_token", "max_tokens"),
    ("benchmarks/asdiv/tilte", "benchmarks.asdiv.tilte", "title"),
    ("benchmarks/asdiv/files/all/licens", "benchmarks.asdiv.files.all.licens", "licence"),
    ("benchmarks/asdiv/fields/answr", "benchmarks.asdiv.fields.answr", "answer"),
    ("benchmarks/asdiv/fields/answer/patern", "benchmarks.asdiv.fields.answer.Mapped.patern", "pattern"),
    ("benchmarks/asdiv/splits/train/sizes", "benchmarks.asdiv.splits.train.sizes", "size"),
    ("prompts/math/instuction", "prompts.math.instuction", "instruction"),
    ("recipes/cot/chosn", "recipes.cot.chosn", "chosen"),
    ("recipes/cot/rejected/styl", "recipes.cot.rejected.styl", "style"),
    ("recipes/cot/fallback/sorce", "recipes.cot.fallback.sorce", "source"),
    ("demonstrations/keep_wrongs", "demonstrations.keep_wrongs", "keep_wrong"),
    ("sampling/cots", "sampling.cots", "cot"),
    ("sampling/generation/temprature", "sampling.generation.temprature", "temperature"),
    ("instruct/epoch", "instruct.epoch", "epochs"),
    ("instruct/lora/droput", "instruct.lora.droput", "dropout"),
    ("refine/betta", "refine.betta", "beta"),
    ("evaluation/max_token", "evaluation.max_token", "max_tokens"),
    ("statistics/levels", "statistics.levels", "level"),
    (f"models/{STUDENT}/parameter", f"models.{STUDENT}.parameter", "parameters"),
    ("cluster/gpu_memry", "cluster.gpu_memry", "gpu_memory"),
]


@pytest.mark.parametrize(("path", "key", "suggestion"), [pytest.param(*row, id=row[1]) for row in UNKNOWN_KEYS])
def test_unknown_key_is_refused_with_its_path_and_a_suggestion(path, key, suggestion):
    message = refused(changed(SHIPPED, path, 1))
    assert f"{key}: unknown key; did you mean {suggestion!r}?" in message


@pytest.mark.parametrize(
    ("path", "key"),
    [("benchmarks/asdiv/splits/tran", "benchmarks.asdiv.splits.tran"), ("prompts/maths", "prompts.maths")],
)
def test_key_out_of_a_closed_list_is_refused_with_its_path_and_the_list(path, key):
    message = refused(changed(SHIPPED, path, 1))
    assert message.startswith(key)
    assert "'math', 'choice' or 'text'" in message or "'train' or 'test'" in message


def test_unknown_key_far_from_any_known_one_is_told_the_known_ones():
    assert refused(changed(SHIPPED, "statistics/zzz", 1)) == (
        "statistics.zzz: unknown key; defined are count_unrefined, level, looks, margin, matched_length, spending"
    )


def test_all_faults_are_told_at_once():
    config = changed(changed(SHIPPED, "instruct/epoch", 1), "refine/beta", -1)
    message = refused(config)
    assert "instruct.epoch: unknown key" in message
    assert "refine.beta: " in message


def test_a_check_tells_all_that_it_finds():
    message = refused(changed(changed(SHIPPED, "study/students", ["smollm2-135"]), "study/tasks", ["asdvi", "asdvi"]))
    first, second, third = message.split("; study.")
    assert first.startswith("study.students: 'smollm2-135' is not defined")
    assert (second.split(":")[0], third) == ("tasks", "tasks: a name stands there twice")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "study/students",
            ["smollm2-135"],
            "study.students: 'smollm2-135' is not defined; did you mean 'smollm2-135m'?",
        ),
        (
            "study/teachers",
            ["qwen2.5-1.5b"],
            "study.teachers: 'qwen2.5-1.5b' is not defined; did you mean 'qwen2.5-coder-1.5b'?",
        ),
        ("study/tasks", ["asdvi"], "study.tasks: 'asdvi' is not defined; did you mean 'asdiv'?"),
        ("study/evaluate", ["asdiv", "cqsa"], "study.evaluate: 'cqsa' is not defined; did you mean 'csqa'?"),
        ("study/recipes", ["cott"], "study.recipes: 'cott' is not defined; did you mean 'cot'?"),
        (
            f"students/{STUDENT}/model",
            "smollm2",
            f"students.{STUDENT}.model: 'smollm2' is not defined; did you mean 'smollm2-135m'?",
        ),
        (
            f"teachers/{TEACHER}/model",
            "qwen2.5",
            f"teachers.{TEACHER}.model: 'qwen2.5' is not defined; defined are {TEACHER}, {STUDENT}",
        ),
        ("study/tasks", ["asdiv", "asdiv"], "study.tasks: a name stands there twice"),
        (
            "study/tasks",
            ["gsm_symbolic"],
            "benchmarks.gsm_symbolic.splits: has no 'train' split, which the study needs",
        ),
        (
            "benchmarks/csqa/splits",
            {"train": {"file": "all"}},
            "benchmarks.csqa.splits: has no 'test' split, which the study needs",
        ),
        ("study/shares", [0], "study.shares: each must be a whole percentage from 1 to 100"),
        ("study/shares", [50, 101], "study.shares: each must be a whole percentage from 1 to 100"),
        ("study/transfer_shares", [50], "study.transfer_shares: 50 is none of study.shares [100]"),
        ("study/transfer_shares", [100, 100], "study.transfer_shares: a value stands there twice"),
        ("study/teacher_styles", ["plain"], "study.teacher_styles: must have cot, from which demonstrations are made"),
        ("study/teacher_styles", ["cot", "cot"], "study.teacher_styles: a value stands there twice"),
        ("benchmarks/csqa/splits/test/file", "al", "benchmarks.csqa: splits.test.file 'al' is none of its files (all)"),
        ("instruct/micro_batch_size", 5, "instruct: batch_size 16 is not a multiple of micro_batch_size 5"),
        (
            f"students/{STUDENT}/instruct",
            {"micro_batch_size": 5},
            f"students.{STUDENT}.instruct: (whole): batch_size 16 is not a multiple of micro_batch_size 5",
        ),
        (
            "extractor",
            "lax",
            "extractor: Input should be 'strict', 'unanimous', 'legacy' or 'math-verify' (found 'lax')",
        ),
        ("threads/train", 0, "threads.train: Input should be greater than 0 (found 0)"),
        ("engine", "openai", "engine: Input should be 'transformers' or 'vllm' (found 'openai')"),
        ("vllm/memory", 1.5, "vllm.memory: Input should be less than or equal to 1 (found 1.5)"),
    ],
)
def test_wrong_name_or_value_is_refused(path, value, message):
    assert refused(changed(SHIPPED, path, value)) == message


def test_misspelled_arm_is_refused_with_the_list_of_arms():
    message = refused(changed(SHIPPED, "study/arms", ["basline"]))
    assert message.startswith("study.arms.0: ")
    assert "'refine-only' (found 'basline')" in message


def test_missing_section_is_named():
    config = {key: value for key, value in SHIPPED.items() if key != "recipes"}
    assert refused(config) == "recipes: Field required"


def test_missing_prompt_is_named():
    config = changed(SHIPPED, "prompts", {"math": SHIPPED["prompts"]["math"]})
    assert refused(config) == "prompts: has no entry for kind 'choice' (benchmark 'csqa')"


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"engine": "recorded", "model": "large", "family": "bird"}, "needs the key 'recording'"),
        ({"engine": "transformers", "recording": "x.jsonl", "family": "bird"}, "needs the key 'model'"),
        ({"engine": "vllm", "served": "large", "family": "bird"}, "engine vllm needs the key 'model'"),
    ],
)
def test_teacher_that_cannot_answer_is_refused(teacher, message):
    assert message in refused(changed(SMALL, "teachers/owl", teacher))


@pytest.mark.parametrize(
    ("recipes", "allowed"),
    [(["cot"], True), (["answer"], False), (["cot", "answer"], True), (["with_fallback"], False)],
)
def test_refine_only_takes_no_recipe_that_needs_a_teacher(recipes, allowed):
    config = changed(SMALL, "study/recipes", recipes)
    config["recipes"]["with_fallback"] = config["recipes"]["cot"] | {"fallback": {"source": "teacher"}}
    if allowed:
        used = {row["recipe"] for row in Study.read(config).checkpoints() if row["arm"] == "refine-only"}
        assert used == {"cot"}
    else:
        expected = "study.arms: refine-only has no recipe: it has no teacher, and draws on none"
        assert refused(config) == f"{expected}; study.recipes has {recipes[0]!r}"
    Study.read(changed(config, "study/arms", ["refine", "cross"]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("study/shares", [50, 50]),
        ("study/seeds", [0, 0]),
        ("study/arms", ["baseline", "baseline"]),
        ("students/ant/instruct", {"lora": None}),
        ("students/bee/instruct", {"learnig_rate": 1}),
        ("benchmarks/add/fields/answer", {"field": "a", "pattern": "("}),
        ("benchmarks/pick/fields/choices", {"field": "c", "pattern": "(a)(b)(c)"}),
        ("students/a b", SMALL["students"]["bee"]),
        ("benchmarks/a.b", SMALL["benchmarks"]["add"]),
    ],
)
def test_what_would_fail_later_is_refused_at_once(path, value):
    refused(changed(SMALL, path, value))


def test_names_that_cannot_stand_in_a_path_are_refused():
    config = copy.deepcopy(SMALL)
    config["students"]["a/b"] = config["students"]["bee"]
    assert "a/b" in refused(config)


EXPECTED_CHECKPOINTS = """
baseline     ant/base
instruct     ant/instruct/owl/add/50/0
instruct     ant/instruct/owl/add/50/7
instruct     ant/instruct/owl/add/100/0
instruct     ant/instruct/owl/add/100/7
instruct     ant/instruct/owl/pick/50/0
instruct     ant/instruct/owl/pick/50/7
instruct     ant/instruct/owl/pick/100/0
instruct     ant/instruct/owl/pick/100/7
refine       ant/instruct/owl/add/50/0/refine/add/cot/50/0
refine       ant/instruct/owl/add/50/7/refine/add/cot/50/7
refine       ant/instruct/owl/add/100/0/refine/add/cot/100/0
refine       ant/instruct/owl/add/100/7/refine/add/cot/100/7
refine       ant/instruct/owl/pick/50/0/refine/pick/cot/50/0
refine       ant/instruct/owl/pick/50/7/refine/pick/cot/50/7
refine       ant/instruct/owl/pick/100/0/refine/pick/cot/100/0
refine       ant/instruct/owl/pick/100/7/refine/pick/cot/100/7
cross        ant/instruct/owl/add/50/0/refine/pick/cot/50/0
cross        ant/instruct/owl/add/50/7/refine/pick/cot/50/7
cross        ant/instruct/owl/add/100/0/refine/pick/cot/100/0
cross        ant/instruct/owl/add/100/7/refine/pick/cot/100/7
cross        ant/instruct/owl/pick/50/0/refine/add/cot/50/0
cross        ant/instruct/owl/pick/50/7/refine/add/cot/50/7
cross        ant/instruct/owl/pick/100/0/refine/add/cot/100/0
cross        ant/instruct/owl/pick/100/7/refine/add/cot/100/7
refine-only  ant/base/refine/add/cot/50/0
refine-only  ant/base/refine/add/cot/50/7
refine-only  ant/base/refine/add/cot/100/0
refine-only  ant/base/refine/add/cot/100/7
refine-only  ant/base/refine/pick/cot/50/0
refine-only  ant/base/refine/pick/cot/50/7
refine-only  ant/base/refine/pick/cot/100/0
refine-only  ant/base/refine/pick/cot/100/7
"""


def test_arms_name_their_checkpoints():
    found = [(row["arm"], row["checkpoint"]) for row in Study.read(SMALL).checkpoints()]
    expected = [tuple(line.split()) for line in EXPECTED_CHECKPOINTS.strip().splitlines()]
    assert len(found) == len(set(found)) == 33
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("arm", ["baseline", "instruct", "refine", "cross", "refine-only"])
def test_arm_that_is_left_out_takes_nothing_else_along(arm):
    arms = [name for name in SMALL["study"]["arms"] if name != arm]
    found = [(row["arm"], row["checkpoint"]) for row in Study.read(changed(SMALL, "study/arms", arms)).checkpoints()]
    expected = [tuple(line.split()) for line in EXPECTED_CHECKPOINTS.strip().splitlines()]
    assert sorted(found) == sorted(row for row in expected if row[0] != arm)


def test_checkpoints_carry_their_facts():
    rows = {row["checkpoint"]: row for row in Study.read(SMALL).checkpoints()}
    assert rows["ant/instruct/owl/add/50/7/refine/pick/cot/50/7"] == {
        "arm": "cross",
        "student": "ant",
        "teacher": "owl",
        "family": "out",
        "task": "add",
        "refine_task": "pick",
        "recipe": "cot",
        "share": 50,
        "select": "",
        "seed": 7,
        "checkpoint": "ant/instruct/owl/add/50/7/refine/pick/cot/50/7",
    }
    blank = dict.fromkeys(("teacher", "family", "task", "refine_task", "recipe", "share", "select", "seed"), "")
    assert rows["ant/base"] == blank | {"arm": "baseline", "student": "ant", "checkpoint": "ant/base"}
    assert rows["ant/base/refine/add/cot/100/0"]["teacher"] == ""
    assert rows["ant/base/refine/add/cot/100/0"]["refine_task"] == "add"


def test_paths_say_what_a_checkpoint_is():
    checkpoint = "ant/instruct/owl/add/50/7/refine/pick/cot/50/7"
    (step,) = refinements_of(checkpoint)
    assert step == ("ant/instruct/owl/add/50/7", *checkpoint.split("/refine/")[1].split("/"))
    second = f"{checkpoint}/refine/add/answer/50/7"
    assert refinements_of(second) == [step, (checkpoint, "add", "answer", "50", "7")]
    assert origin_of(second) == "ant/instruct/owl/add/50/7"
    assert refinements_of("ant/base") == []
    assert student_of(checkpoint) == "ant"
    assert teacher_of(checkpoint) == "owl"
    assert teacher_of("ant/base/refine/add/cot/50/7") is None
    assert teacher_of("ant/base") is None


def test_every_checkpoint_and_teacher_is_judged_on_every_evaluation_task():
    cells = json.loads(finals(SMALL).listings.text("tables"))["cells"]
    assert len(cells) == 33 * 2 + 2
    # A study that chooses no items does not say how it did.
    told = [{name: cell[name] for name in cell if name != "select"} for cell in Study.read(SMALL).cells()]
    assert [{name: cell[name] for name in cell if name != "samples"} for cell in cells] == told
    assert [place(cell["samples"]) for cell in cells if cell["arm"] in ("baseline", "teacher")] == [
        "evaluate/ant/base/add/samples.jsonl",
        "evaluate/ant/base/pick/samples.jsonl",
        "teach/owl/add-test-cot/answers.jsonl",
        "teach/owl/pick-test-cot/answers.jsonl",
    ]


@pytest.mark.parametrize("shares", [None, [100, 50]])
def test_all_shares_are_transferred_by_default(shares):
    assert Study.read(changed(SMALL, "study/transfer_shares", shares)).cells() == Study.read(SMALL).cells()


@pytest.mark.parametrize("shares", [[100], [50], []])
def test_a_share_that_is_not_transferred_is_evaluated_on_what_it_was_trained_on(shares):
    def trained_on(cell: dict) -> set:
        return {cell["task"], cell["refine_task"]} - {""}

    cells = Study.read(changed(SMALL, "study/transfer_shares", shares)).cells()
    expected = [
        cell
        for cell in Study.read(SMALL).cells()
        if cell["share"] in ("", *shares) or trained_on(cell) == {cell["evaluation"]}
    ]
    assert cells == expected
    assert len(cells) == 2 + 2 + len(shares) * 16 * 2 + (2 - len(shares)) * 12
    assert {cell["share"] for cell in cells if cell["arm"] == "cross"} == set(shares)


def test_a_share_that_is_not_transferred_needs_no_cross_artifacts():
    behind = finals(changed(SMALL, "study/transfer_shares", [100])).inputs.behind["pairs"]
    crossed = [one for one in behind if one.of["start"].split("/")[3:4] not in ([], [one.of["task"]])]
    assert len(crossed) == 2 * 2
    assert all(one.of["share"] == "100" and "/100/" in one.of["start"] for one in crossed)
    assert {one.of["share"] for one in finals(SMALL).inputs.behind["pairs"]} == {"50", "100"}


def test_teachers_are_asked_in_every_style():
    config = changed(SMALL, "teachers/owl/request", {"math": "Be brief.", "choice": "Name a letter."})
    both = finals(changed(config, "study/teacher_styles", ["cot", "plain"]))
    table = both.layout("teachers")
    rows = {(row["task"], row["split"], row["style"]): row["answers"] for row in table.settings["rows"]}
    assert {of: place(path) for of, path in rows.items()} == {
        (task, split, style): f"teach/owl/{task}-{split}-{style}/answers.jsonl"
        for task in ("add", "pick")
        for split in ("train", "test")
        for style in ("cot", "plain")
    }
    assert {str(one.file) for one in table.inputs["behind"]} == set(rows.values())
    asked = {
        (row["name"], row["kind"], row["style"]): row["request"] for row in both.layout("prompts").settings["rows"]
    }
    assert asked["owl", "math", "cot"] == "Be brief."
    assert asked["owl", "choice", "cot"] == "Name a letter."
    assert asked["owl", "math", "plain"] == asked["owl", "choice", "plain"] == asked["ant", "math", "cot"] == ""
    wishes = {
        style: stage_settings.settings(both.study, "teach", teacher="owl", task="add", split="test", style=style)[
            "request"
        ]
        for style in ("cot", "plain")
    }
    assert wishes == {"cot": "Be brief.", "plain": ""}


def test_plain_answers_of_teachers_reach_their_table_and_the_verdicts_under_other_prompts():
    both, alone = finals(changed(SMALL, "study/teacher_styles", ["cot", "plain"])), finals(SMALL)
    assert both.listings.text("tables") == alone.listings.text("tables")
    finals_of_both = {place(one): one.key for one in both.all()}
    assert {place(one) for one in alone.all() if finals_of_both[place(one)] != one.key} == {
        "listing/configuration",
        "layout/teachers",
        "layout/prompts",
        "flips",
        "plot/flips",
        "summarise",
        "page",
    }
    assert both.layout("prompts").inputs["behind"] == tuple(map(both.artifacts.items, ("add", "pick"), ("test",) * 2))


def test_listings_name_the_files_behind_the_cells():
    config = changed(SMALL, "study/shares", [100])
    config["study"] |= {"seeds": [7], "tasks": ["add"], "arms": ["refine", "refine-only"]}
    found = finals(config)
    index, page = (json.loads(found.listings.text(part)) for part in ("tables", "page"))
    name, start = "ant/instruct/owl/add/100/7", "ant/owl-add-100-seed7"
    assert [place(path) for path in index["paths"]] == [
        "sample/ant/base/add-100-seed7/paths.jsonl",
        f"sample/{start}/add-100-seed7/paths.jsonl",
    ]
    assert sorted(map(place, index["pairs"])) == [
        "pair/ant/base/add-cot-100-seed7/pairs.jsonl",
        f"pair/{start}/add-cot-100-seed7/pairs.jsonl",
    ]
    assert {checkpoint: place(path) for checkpoint, path in index["training"].items()} == {
        "ant/base/refine/add/cot/100/7": "refine/ant/base-100-seed7/add-cot-round1/training.jsonl",
        f"{name}/refine/add/cot/100/7": f"refine/{start}/add-cot-round1/training.jsonl",
    }
    assert [place(path) for path in index["demonstrations"]] == ["demonstrate/owl/add/demonstrations.jsonl"]
    assert {task: place(path) for task, path in page["items"].items()} == {"add": "prepare/add-train/items.jsonl"}
    assert {task: place(path) for task, path in page["tasks"].items()} == {
        "add": "export_task/add/docs.jsonl",
        "pick": "export_task/pick/docs.jsonl",
    }
    records = set(map(place, index["records"]))
    assert f"instruct/{start}/record.json" not in records
    assert f"refine/{start}/add-cot-round1/record.json" in records
    read = {str(one.file.parent) for inputs in found.tables().inputs.values() for one in inputs if one.stage in FILES}
    named = (*(cell["samples"] for cell in index["cells"]), *index["paths"], *index["pairs"], *index["demonstrations"])
    assert read == {str(Path(path).parent) for path in (*named, *index["answers"])}
    assert found.study.titles() == {"add": "Sums", "pick": "Picks"}
    assert found.study.shown_names() == {"titles": found.study.titles(), "students": {}, "teachers": {}}
    assert [(row["role"], row["name"]) for row in found.study.sources()] == [
        ("benchmark", "add"),
        ("benchmark", "pick"),
        ("student", "ant"),
        ("teacher", "owl"),
    ]


def one_of_each(found: FinalArtifacts, student: str) -> list[Artifact]:
    """An artifact of each stage."""
    artifacts, start, cell = found.artifacts, f"{student}/instruct/owl/add/50/7", ("50", "7")
    return [
        artifacts.raw("add", "all"),
        artifacts.model("tiny"),
        artifacts.items("add", "train"),
        artifacts.answers("owl", "add", "train", "cot"),
        artifacts.demonstrations("owl", "add"),
        artifacts.checkpoint(start),
        artifacts.paths(start, "add", *cell),
        artifacts.pairs(start, "add", "cot", *cell),
        artifacts.checkpoint(f"{start}/refine/add/cot/50/7"),
        artifacts.lm_eval_task("add"),
        artifacts.evaluation(start, "add"),
        found.tables(),
    ]


def recipes(config: dict, student: str = "ant") -> dict[str, str]:
    """What of a configuration enters the key of an artifact of each stage, inputs left out."""
    made = one_of_each(finals(config), student)
    return {one.stage: canonical_json([one.settings, *(content for _, content in one.sources)]) for one in made}


def settings(config: dict, student: str = "ant") -> dict[str, dict]:
    return {one.stage: one.settings for one in one_of_each(finals(config), student)}


def differing(before: dict, after: dict) -> set[str]:
    return {stage for stage in before if before[stage] != after[stage]}


def turned_round(value):
    if isinstance(value, dict):
        return {key: turned_round(inner) for key, inner in reversed(value.items())}
    return [turned_round(inner) for inner in value] if isinstance(value, list) else value


def test_settings_are_plain_json_and_do_not_depend_on_the_order_of_keys():
    before = recipes(SMALL)
    assert recipes(turned_round(SMALL)) == before
    for stage, found in settings(SMALL).items():
        text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert canonical_json(found) == text and json.loads(text) == found, stage


@pytest.mark.parametrize("written", ["1e-05", "1e-5", "0.00001", "1.0e-5", "0.01e-3"])
def test_recipes_do_not_depend_on_how_a_number_is_written(written):
    from_yaml = yaml.safe_load(f"rate: {written}")["rate"]  # a text where YAML sees no number, as in 1e-5
    for value in (from_yaml, str(written), float(written)):
        assert recipes(changed(SMALL, "instruct/learning_rate", value)) == recipes(SMALL)
        assert recipes(changed(SMALL, "students/ant/instruct/learning_rate", value)) == recipes(SMALL)


def test_recipes_do_not_depend_on_whether_a_default_is_written_out():
    config = changed(SMALL, "refine/beta", 0.1)
    config = changed(config, "recipes/cot/per_item", 1)
    config = changed(config, "students/ant/system", None)
    assert recipes(changed(config, "instruct/batch_size", 128)) == recipes(SMALL)


# what is changed, and the stages whose jobs must run again for it
CHANGES = [
    ("benchmarks/add/files/all/source", "file:other.jsonl", {"fetch"}),
    ("models/tiny/source", "file:other", {"fetch_model"}),
    ("models/large/source", "file:other", set()),
    ("benchmarks/add/splits/train/size", 9, {"prepare"}),
    ("benchmarks/add/splits/test/size", 9, set()),
    ("benchmarks/add/fields/question", "text", {"prepare"}),
    ("benchmarks/pick/splits/train/size", 12, set()),
    ("benchmarks/add/title", "Additions", set()),
    ("students/ant/title", "The Ant", set()),
    ("teachers/owl/title", "The Owl", set()),
    ("statistics/count_unrefined", True, set()),
    ("prompts/math/instruction", "Add.", {"teach", "instruct", "sample", "refine", "export_task"}),
    ("prompts/choice/instruction", "Choose.", set()),
    ("teachers/owl/generation/max_tokens", 99, {"teach"}),
    ("teachers/owl/request", {"math": "Be brief."}, {"teach"}),
    ("teachers/owl/request", {"choice": "Be brief."}, set()),
    ("teachers/owl/family", "mammal", set()),
    ("demonstrations/keep_wrong", True, {"demonstrate"}),
    ("instruct/learning_rate", 2e-5, {"instruct"}),
    ("instruct/lora/alpha", 16, {"instruct"}),
    ("sampling/plain", 1, {"sample"}),
    ("sampling/generation/temperature", 0.5, {"sample"}),
    ("validation", 0.2, {"pair"}),
    ("recipes/cot/per_item", 2, {"pair"}),
    ("recipes/answer/per_item", 2, set()),
    ("refine/beta", 0.2, {"refine"}),
    ("evaluation/max_tokens", 99, {"export_task"}),
    ("extractor", "legacy", {"teach", "sample", "tables"}),
    ("extractor", "math-verify", {"teach", "sample", "export_task", "tables"}),
    ("statistics/level", 0.9, {"tables"}),
    ("study/seeds", [0, 7, 8], set()),
    ("study/arms", ["baseline"], set()),
    ("threads/train", 4, set()),
    ("engine", "vllm", {"sample", "evaluate"}),
    ("vllm/memory", 0.5, set()),
    ("vllm/batch_invariant", True, set()),
    ("teachers/owl/engine", "vllm", {"teach"}),
    ("cluster", {"longest_hours": 2}, set()),
    ("models/tiny/parameters", 7, set()),
    ("students/ant/instruct", {"epochs": 3}, {"instruct"}),
    ("students/ant/instruct", {"epochs": 2, "lora": {"r": 5}}, {"instruct"}),
    ("students/ant/refine", {"lora": {"r": 5}}, {"refine"}),
    ("students/ant/batch_size", 7, {"sample", "evaluate"}),
    ("students/ant/system", "Be good.", {"instruct", "sample", "refine", "evaluate"}),
    ("students/ant/family", "arachnid", set()),
]


@pytest.mark.parametrize(("path", "value", "stages"), CHANGES)
def test_change_reaches_the_recipes_of_these_stages_and_no_others(path, value, stages):
    assert differing(recipes(SMALL), recipes(changed(SMALL, path, value))) == stages


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recipes/cot/cited", "another paper"),
        ("benchmarks/add/files/all/licence", "MIT"),
        ("models/tiny/licence", "MIT"),
    ],
)
def test_words_that_change_no_artifact_reach_no_recipe(path, value):
    assert differing(recipes(SMALL), recipes(changed(SMALL, path, value))) == set()


@pytest.mark.parametrize("key", ["instruct", "refine", "system", "batch_size", "dtype"])
def test_one_students_override_leaves_the_other_student_alone(key):
    value = {
        "instruct": {"learning_rate": 3e-4, "lora": {"r": 5}},
        "refine": {"beta": 0.3},
        "system": "Be good.",
        "batch_size": 5,
        "dtype": "float32",
    }[key]
    config = changed(SMALL, f"students/ant/{key}", value)
    assert differing(recipes(SMALL, "ant"), recipes(config, "ant"))
    assert recipes(config, "bee") == recipes(SMALL, "bee")


def test_completions_drawn_at_once_shape_nothing_where_vllm_sees_to_it():
    config = changed(changed(SMALL, "engine", "vllm"), "teachers/owl/engine", "vllm")
    for key in ("students/ant/batch_size", "teachers/owl/batch_size"):
        assert recipes(changed(config, key, 7)) == recipes(config)
    for stage in ("sample", "evaluate", "teach"):
        assert settings(config)[stage]["batch_size"] is None


def test_override_is_laid_over_the_general_section():
    config = changed(SMALL, "students/ant/instruct", {"learning_rate": "3e-4", "lora": {"r": 5}})
    own, general = (settings(config, student)["instruct"]["training"] for student in ("ant", "bee"))
    assert own == general | {"learning_rate": 3e-4, "lora": general["lora"] | {"r": 5}}
    assert general["learning_rate"] == 1e-5
    assert general["lora"]["alpha"] == 8


def test_share_and_seed_are_in_the_recipes_they_shape():
    found = settings(SMALL)
    assert (found["instruct"]["share"], found["instruct"]["seed"]) == (50, 7)
    assert (found["sample"]["share"], found["sample"]["seed"]) == (50, 7)
    assert found["refine"]["seed"] == 7


SCHEDULED = changed(SMALL, "study/recipes", ["twice"])
SCHEDULED["recipes"] = SMALL["recipes"] | {
    "again": {"chosen": {}, "rejected": {}, "objective": {"restart": True}},
}
SCHEDULED["schedules"] = {"twice": {"steps": ["cot", "again"], "rounds": 2}}
SCHEDULED["study"] |= {"shares": [100], "seeds": [7], "tasks": ["add"], "arms": ["refine"]}


def test_a_schedule_makes_each_checkpoint_from_the_last_one():
    study = Study.read(SCHEDULED)
    (row,) = [row for row in study.checkpoints() if row["arm"] == "refine"]
    start = "ant/instruct/owl/add/100/7"
    steps = [f"refine/add/{recipe}/100/7" for recipe in ("cot", "again", "cot", "again")]
    chain = ["/".join([start, *steps[:number]]) for number in range(5)]
    assert (row["checkpoint"], row["recipe"]) == (chain[4], "twice")
    index = json.loads(finals(SCHEDULED).listings.text("tables"))
    origin = "ant/owl-add-100-seed7"
    rounds = [
        origin,
        *(f"{origin}/add-{name}" for name in ("cot-round1", "again-round2", "cot-round3", "again-round4")),
    ]
    assert sorted(map(place, index["paths"])) == sorted(f"sample/{at}/add-100-seed7/paths.jsonl" for at in rounds[:4])
    assert {name: place(path) for name, path in index["training"].items()} == {
        name: f"refine/{at}/training.jsonl" for name, at in zip(chain[1:], rounds[1:], strict=True)
    }
    assert place(index["pairs"][2]) == f"pair/{rounds[2]}/add-cot-100-seed7/pairs.jsonl"


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({"twice": {"steps": ["cott"]}}, "schedules.twice.steps: 'cott' is not defined; did you mean 'cot'"),
        ({"cot": {"steps": ["cot"]}, "twice": {"steps": ["cot"]}}, "schedules.cot: a recipe has that name too"),
        ({"twice": {"steps": []}}, "schedules.twice.steps: List should have at least 1 item"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(schedules, message):
    with pytest.raises(UserError, match=message):
        Study.read(SCHEDULED | {"schedules": schedules})
