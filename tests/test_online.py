"""Online refinement: what is asked, sampled, rewarded and learned, against what reference, and after a kill."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from conftest import INSTRUCTION, REPOSITORY
from conftest import run_training as run
from selfrefine.data.prompts import messages
from selfrefine.engines.interface import Request, seed_for
from selfrefine.engines.transformers import TransformersEngine
from selfrefine.errors import UserError
from selfrefine.judging.sampled_paths import judge
from selfrefine.models.checkpoints import load_checkpoint, load_tokenizer
from selfrefine.schema.generation import Generation
from selfrefine.schema.optimisation import RefineTraining
from selfrefine.schema.prompt import TaskPrompt
from selfrefine.schema.stages import RefineOnlineSettings
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.store.provenance import read_record
from selfrefine.training.budget import within_budget
from selfrefine.training.loop import Start
from selfrefine.training.online.loop import make_trainer
from selfrefine.training.online.prompts import PromptOrder, ask
from selfrefine.training.trainable_weights import load_for_training
from selfrefine.training.trainer_arguments import common_arguments

PROMPT = {"instruction": INSTRUCTION}
ITEMS = [
    {
        "id": f"{i:016x}",
        "kind": "choice",
        "question": f"Box {i} is red today.",
        "choices": ["red", "blue"],
        "answer": "A",
    }
    for i in range(12)
]
TRAINING = {
    "batch_size": 16,
    "micro_batch_size": 8,
    "learning_rate": 0.005,
    "max_steps": 4,
    "epochs": 100,
    "schedule": "constant",
    "warmup_steps": 0,
    "save_every": 2,
    "lora": {"r": 16, "alpha": 32, "dropout": 0.1},
}
ONLINE = {"group": 4, "kl": 0.02, "generation": {"max_tokens": 12, "temperature": 1.0}}
TWO_PROCESSES = (
    *("accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"),
)


def settings_of(training=(), online=(), **more):
    training, online = TRAINING | dict(training), ONLINE | dict(online)
    return {"prompt": PROMPT, "dtype": "float32", "batch_size": 16, "training": training, "online": online, **more}


def command(folder: Path, start: Path, out: str = "out", items=ITEMS, **settings) -> list:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "items.jsonl", items)
    return [
        *("python", "scripts/refine_online.py", "--settings", json.dumps(settings_of(**settings))),
        *("--start", start, "--items", folder / "items.jsonl", "--record", folder / out / "record.json"),
    ]


def refined(folder: Path, start: Path, **settings) -> tuple[dict, list[dict]]:
    """(figures of the record, rows of the log) of a refinement."""
    run(*command(folder, start, **settings))
    return read_record(folder / "out/record.json").figures, read_jsonl(folder / "out/training.jsonl")


@pytest.fixture(scope="module")
def guessing(tmp_path_factory, base_checkpoint) -> Path:
    """The record of a student that was taught to answer A or B, whatever is asked."""
    folder = tmp_path_factory.mktemp("guessing")
    demonstrations = [
        {"id": f"{item['id']}-cot-{k}", "item": item["id"], "text": f"The answer is {label}.", "tokens": 6}
        for item in ITEMS
        for k, label in enumerate("AB")
    ]
    write_jsonl(folder / "items.jsonl", ITEMS)
    write_jsonl(folder / "demonstrations.jsonl", demonstrations)
    training = {"epochs": 30, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.02}
    training |= {"lora": {"r": 16, "alpha": 32, "dropout": 0.1}}
    run(
        *("python", "scripts/instruct.py", "--start", base_checkpoint, "--items", folder / "items.jsonl"),
        *("--settings", json.dumps({"prompt": PROMPT, "dtype": "float32", "training": training})),
        *("--demonstrations", folder / "demonstrations.jsonl", "--record", folder / "out/record.json"),
    )
    return folder / "out/record.json"


@pytest.fixture(scope="module")
def learned(tmp_path_factory, guessing) -> Path:
    """The folder of a student that learned for some updates."""
    folder = tmp_path_factory.mktemp("learned")
    run(*command(folder, guessing))
    return folder / "out"


def weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}


# What is learned.


def test_a_student_learns_what_is_rewarded(guessing, tmp_path):
    figures, rows = refined(tmp_path, guessing, training={"max_steps": 25, "batch_size": 32})
    assert 0.2 < figures["first_reward"] < 0.8
    assert figures["final_reward"] > 0.95
    assert (figures["updates"], len(rows), figures["groups"]) == (25, 25, 25 * 8)
    assert 0 < figures["groups_varied"] < figures["groups"]
    assert rows[-1]["no_variance"] > 0.5 and rows[0]["no_variance"] < 0.5
    assert rows[0]["length"] == pytest.approx(rows[0]["sampled_tokens"] / 32, rel=1e-6)


def test_another_reward_is_learned_from_the_same_start(guessing, tmp_path):
    """So that it is the reward that is learned."""
    items = [{**item, "answer": "B"} for item in ITEMS]
    figures, _ = refined(tmp_path, guessing, items=items, training={"max_steps": 25, "batch_size": 32})
    assert figures["final_reward"] > 0.95


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_starts_at_its_reference(method, guessing, tmp_path):
    """With the instructed adapter, and with all weights after it was merged into them; TRL would take the base model."""
    rows = refined(tmp_path, guessing, training={"method": method, "learning_rate": 0.002})[1]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-7)
    assert rows[-1]["kl"] > 1e-5


def test_a_base_model_is_its_own_reference(base_checkpoint, tmp_path):
    """Cut completions are learned from, since this model does not know how to end."""
    rows = refined(tmp_path, base_checkpoint, online={"learn_cut": True})[1]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-7)


def test_without_a_weight_there_is_no_divergence(guessing, tmp_path):
    rows = refined(tmp_path, guessing, online={"kl": 0.0})[1]
    assert [row["kl"] for row in rows] == [None] * 4


def test_where_no_reward_varies_nothing_is_learned(guessing, tmp_path):
    items = [{**item, "answer": "C"} for item in ITEMS]
    figures, rows = refined(tmp_path, guessing, items=items, training={"weight_decay": 0.0})
    assert (figures["groups_varied"], figures["updates"]) == (0, 4)
    assert [row["no_variance"] for row in rows] == [1.0] * 4
    assert weights(tmp_path / "out") == weights(guessing.parent)


# What is asked, sampled and rewarded.


class Noted:
    """A trainer in this process, and what its verdicts were asked."""

    def __init__(self, start: Path, folder: Path, items=ITEMS, **settings):
        self.settings = RefineOnlineSettings(**settings_of(**settings))
        self.start = Start.open(start, "auto")
        self.asked = ask({item["id"]: item for item in items}, self.settings, self.start.tokenizer)
        self.verdicts: list[tuple[dict, str, bool]] = []
        updates = self.settings.training.max_steps
        arguments = common_arguments(self.settings.training, folder, 0, updates, "float32")
        model = load_for_training(self.start.folder, self.start.adapter, self.settings)
        self.trainer = make_trainer(
            *(model, self.settings, self.asked, self.verdict, self.start),
            arguments=arguments,
            updates=updates,
            memory=0.3,
        )
        self.batches: list[dict] = []
        score = self.trainer._generate_and_score_completions
        self.trainer._generate_and_score_completions = lambda inputs: self.note(score(inputs), inputs)

    def verdict(self, item: dict, text: str) -> bool:
        correct = judge(item, text, "strict")["correct"]
        self.verdicts.append((item, text, correct))
        return correct

    def note(self, made: dict, inputs: list[dict]) -> dict:
        self.batches.append({**made, "names": [row["prompt"] for row in inputs]})
        return made


@pytest.fixture(scope="module")
def noted(tmp_path_factory, guessing) -> Noted:
    noted = Noted(guessing, tmp_path_factory.mktemp("noted"), training={"max_steps": 2})
    noted.trainer.train()
    return noted


def unpadded(ids: torch.Tensor, mask: torch.Tensor) -> list[int]:
    return ids[mask.bool()].tolist()


def test_rewards_are_the_extractors_verdicts_on_the_very_completions(noted):
    tokenizer = noted.start.tokenizer
    texts = [
        tokenizer.decode(unpadded(ids, mask), skip_special_tokens=True).strip()
        for batch in noted.batches
        for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    names = [name for batch in noted.batches for name in batch["names"]]
    assert [(item["id"], text) for item, text, _ in noted.verdicts] == list(zip(names, texts, strict=True))
    assert {correct for *_, correct in noted.verdicts} == {True, False}
    rewards = torch.tensor([float(correct) for *_, correct in noted.verdicts]).view(-1, 4)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    found = torch.cat([batch["advantages"] for batch in noted.batches]).view(-1, 4)
    assert torch.allclose(found, expected, atol=1e-5)


def test_prompts_are_those_of_the_sample_stage_with_one_bos_token(noted, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    by_id = {item["id"]: item for item in ITEMS}
    engine = TransformersEngine(load_checkpoint(tiny_model / "record.json", "float32")[0], tokenizer, {}, 1)
    for batch in noted.batches:
        for ids, mask, name in zip(batch["prompt_ids"], batch["prompt_mask"], batch["names"], strict=True):
            asked = engine.encode(messages(by_id[name], TaskPrompt(**PROMPT), "cot"))
            assert unpadded(ids, mask) == asked
            assert asked[0] == tokenizer.bos_token_id != asked[1]


def test_completions_end_with_the_stop_token_unless_they_were_cut(noted):
    stop = noted.start.tokenizer.eos_token_id
    ends = [
        unpadded(ids, mask)
        for batch in noted.batches
        for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    assert all(ids.count(stop) <= 1 and (ids[-1] == stop or len(ids) == 12) for ids in ends)
    assert sum(ids[-1] == stop for ids in ends) > len(ends) // 2


def test_the_first_completions_are_those_of_the_engine_with_these_seeds(noted, guessing):
    """The sample stage would generate the same, and every completion has a seed of its own."""
    model, tokenizer, _ = load_checkpoint(guessing, "float32")
    engine, batch = TransformersEngine(model, tokenizer, {}, 16), noted.batches[0]
    by_id, generation = {item["id"]: item for item in ITEMS}, Generation(max_tokens=12, temperature=1.0)
    requests = [
        Request(
            str(number),
            messages(by_id[name], TaskPrompt(**PROMPT), "cot"),
            generation,
            seed_for(name, 0, "update0", number),
        )
        for number, name in enumerate(batch["names"])
    ]
    assert len({request.seed for request in requests}) == 16
    found = {}
    for group in engine.batches(requests):
        found |= dict(zip([request.id for request in group], engine.generate(group), strict=True))
    texts = [text for _, text, _ in noted.verdicts[:16]]
    assert [found[str(number)].text for number in range(16)] == texts


def test_groups_are_of_one_item_each_and_all_items_are_asked_equally_often(noted):
    for batch in noted.batches:
        groups = [batch["names"][start : start + 4] for start in range(0, 16, 4)]
        assert all(len(set(group)) == 1 for group in groups)
    order = list(PromptOrder(items=6, prompts=4, group=2, samplings=3, passes=2, seed=1))
    assert len(order) == len(PromptOrder(6, 4, 2, 3, 2, 1)) == 3 * 2 * 4 * 2
    asked = [order[start : start + 8] for start in range(0, 48, 16)]
    assert asked == [order[start + 8 : start + 16] for start in range(0, 48, 16)]
    firsts = [index for sampling in asked for index in sampling[::2]]
    assert sorted(firsts) == sorted([*range(6)] * 2)
    assert list(PromptOrder(6, 4, 2, 3, 2, seed=2)) != order


@pytest.mark.parametrize("learned", [False, True])
def test_cut_completions_are_learned_from_only_if_asked(learned, base_checkpoint, tmp_path):
    noted = Noted(base_checkpoint, tmp_path, training={"max_steps": 1}, online={"learn_cut": learned})
    # Rewards that vary, though no completion is correct.
    calls = iter(range(100))
    noted.trainer._verdict = lambda item, text: next(calls) % 2 == 0
    noted.trainer.train()
    (batch,) = noted.batches
    is_cut = batch["completion_ids"][:, -1] != noted.start.tokenizer.eos_token_id
    assert is_cut.any() and batch["completion_mask"][is_cut].bool().all()
    assert batch["tool_mask"][is_cut].bool().any() == learned
    assert batch["tool_mask"][~is_cut].bool().all()
    (row,) = [entry for entry in noted.trainer.state.log_history if "loss" in entry]
    assert row["cut"] == pytest.approx(is_cut.float().mean().item())
    assert (row["grad_norm"] > 0) == (learned or not is_cut.all())


def test_an_answer_that_ends_at_a_stop_string_is_whole(guessing, tmp_path):
    noted = Noted(guessing, tmp_path, training={"max_steps": 1}, stop=["answer"])
    noted.trainer.train()
    (batch,) = noted.batches
    assert batch["tool_mask"].bool().all()
    assert all("answer" not in text for _, text, _ in noted.verdicts)
    (row,) = [entry for entry in noted.trainer.state.log_history if "loss" in entry]
    assert row["cut"] == 0 and row["completions/clipped_ratio"] > 0


def test_tokens_are_counted_once_sampled_and_at_each_update(noted, guessing, tmp_path):
    rows = [entry for entry in noted.trainer.state.log_history if "loss" in entry]
    for row, batch in zip(rows, noted.batches, strict=True):
        assert row["sampled_tokens"] == batch["completion_mask"].sum()
        assert row["trained_tokens"] == batch["completion_mask"].sum() + batch["prompt_mask"].sum()
    figures, rows = refined(tmp_path, guessing, online={"iterations": 2}, training={"learning_rate": 0.05})
    assert figures["updates"] == 4 and figures["groups"] == 2 * 4
    assert [row["reward"] is None for row in rows] == [False, True, False, True]
    assert [row["sampled_tokens"] > 0 for row in rows] == [True, False, True, False]
    assert rows[0]["trained_tokens"] == rows[1]["trained_tokens"]
    assert rows[0]["clipped"] == 0 < rows[1]["clipped"]
    assert figures["tokens_made"] == sum(row["sampled_tokens"] for row in rows)
    assert figures["tokens_seen"] == sum(row["trained_tokens"] for row in rows)


# Reruns, kills, processes.


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(learned, guessing, tmp_path):
    run(*command(tmp_path, guessing))
    same = read_record(tmp_path / "out/record.json").outputs
    assert [state.sha256 for state in same.values()] == [
        state.sha256 for state in read_record(learned / "record.json").outputs.values()
    ]
    run(*command(tmp_path, guessing, out="other", seed=1))
    assert weights(tmp_path / "other") != weights(learned)


@pytest.mark.parametrize("more", [{}, {"online": {"iterations": 2}, "training": {"max_steps": 6, "save_every": 1}}])
def test_a_killed_refinement_ends_with_the_same_bytes(more, learned, guessing, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = tmp_path / "dying.py"
    program.write_text(
        "import os, sys\nsys.path.insert(0, 'scripts')\n"
        "from selfrefine.training.online.trainer import OnlineTrainer\nimport refine_online\n"
        "step = OnlineTrainer.training_step\n"
        "def dying(self, *a, **k):\n"
        "    if self.state.global_step == 3: os._exit(9)\n"
        "    return step(self, *a, **k)\n"
        "OnlineTrainer.training_step = dying\nrefine_online.main()\n"
    )
    arguments = command(killed, guessing, **more)
    assert run("python", program, *arguments[2:], check=False).returncode == 9
    assert not (killed / "out/record.json").exists()
    assert "going on from checkpoint-2" in run(*arguments).stdout
    if more:
        run(*command(whole, guessing, **more))
    expected = whole / "out" if more else learned
    assert weights(killed / "out") == weights(expected)
    assert read_jsonl(killed / "out/training.jsonl") == read_jsonl(expected / "training.jsonl")
    figures = [read_record(folder / "record.json").figures for folder in (killed / "out", expected)]
    for name in ("tokens_made", "tokens_seen", "groups", "groups_varied", "updates"):
        assert figures[0][name] == figures[1][name]


def test_two_processes_learn_what_one_learns(learned, guessing, tmp_path):
    arguments = command(tmp_path, guessing)
    run(*TWO_PROCESSES, *arguments[1:])
    one, two = read_jsonl(learned / "training.jsonl"), read_jsonl(tmp_path / "out/training.jsonl")
    # At first their weights are the same, and so are all completions; then sums round otherwise.
    for name in ("reward", "length", "cut", "no_variance", "sampled_tokens", "trained_tokens"):
        assert one[0][name] == pytest.approx(two[0][name])
    assert read_record(tmp_path / "out/record.json").machine["processes"] == 2


# A budget of tokens.


def test_a_budget_ends_training_with_the_update_that_reaches_it(learned, guessing, tmp_path):
    spent = [row["sampled_tokens"] + row["trained_tokens"] for row in read_jsonl(learned / "training.jsonl")]
    budget = spent[0] + spent[1] + 1
    arguments = command(tmp_path, guessing, training={"tokens": budget, "max_steps": 100, "save_every": 1})
    program = tmp_path / "dying.py"
    program.write_text(
        "import os, sys\nsys.path.insert(0, 'scripts')\nfrom selfrefine.store.run import Run\nimport refine_online\n"
        "Run.record = lambda *a, **k: os._exit(9)\nrefine_online.main()\n"
    )
    # Killed before its record only, it does not make another update.
    assert run("python", program, *arguments[2:], check=False).returncode == 9
    assert "going on from checkpoint-2" in run(*arguments).stdout
    figures, rows = read_record(tmp_path / "out/record.json").figures, read_jsonl(tmp_path / "out/training.jsonl")
    assert (figures["updates"], len(rows)) == (3, 3)
    assert figures["tokens_made"] + figures["tokens_seen"] == sum(spent[:3]) >= budget


def test_a_budget_of_preference_optimisation_counts_what_was_sampled():
    examples = [{"prompt_ids": [1] * 10, "chosen_ids": [1] * 5, "rejected_ids": [1] * 3}] * 6
    paths = [{"tokens": 50}, {"tokens": 50}]
    training = RefineTraining(batch_size=4, micro_batch_size=4, tokens=100 + 28 * 6 * 3)
    within = within_budget(training, examples, paths, Path("paths.jsonl"))
    from selfrefine.training.refine_phase import planned_updates

    # Three epochs of two updates; one more token asks for another update.
    assert planned_updates(within, 6) == 6
    more = training.model_copy(update={"tokens": training.tokens + 1})
    assert planned_updates(within_budget(more, examples, paths, Path("paths.jsonl")), 6) == 7
    assert within_budget(training.model_copy(update={"tokens": None}), examples, paths, Path()).epochs == 3
    with pytest.raises(UserError, match=r"paths.jsonl: holds 100 sampled tokens, and refine.tokens 100 leaves none"):
        within_budget(training.model_copy(update={"tokens": 100}), examples, paths, Path("paths.jsonl"))


# Refusals.


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("group", 1, "online.group: Input should be greater than 1"),
        ("generation", {"temperature": 0.0}, "completions at temperature 0 would be the same"),
        ("kl", -1, "online.kl: Input should be greater than or equal to 0"),
        ("clip", 1.5, "online.clip: Input should be less than 1"),
        ("los", "grpo", "unknown key; did you mean 'loss'"),
    ],
)
def test_settings_that_cannot_be_learned_with_are_refused(key, value, said):
    from selfrefine.study.design import Study
    from selfrefine.study.open_study import read_configuration

    config = read_configuration([REPOSITORY / "config/config.yaml"])
    config["recipes"]["grpo"]["online"][key] = value
    with pytest.raises(UserError, match=said):
        Study.read(config)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("refine: {batch_size: 12}", "refine.batch_size: 12 completions of an update are no whole groups of 8"),
        ("refine: {tokens: 1000}", "refine.schedule: cosine needs to know how many updates"),
        ("refine: {max_length: 256}", "refine.max_length: 256 tokens leave no room for a prompt"),
        ("students: {smollm2-135m: {thinking: {budget: 20}}}", "thinking.budget: .* learn from whole completions"),
        ("recipes: {grpo: {chosen: {style: cot}}}", "`online` learns from no pairs: leave out chosen"),
        ("recipes: {grpo: {online: null}}", "name the `chosen` side of its pairs, or how it samples `online`"),
        (
            "{refine: {method: full}, models: {qwen2.5-coder-1.5b: {parameters: 1.5}}, "
            "cluster: {gpu_memory: 80, gpus_per_node: 2, gpus_to_train: 2}}",
            "cluster.gpus_to_train: .* train all weights on what they sample, which takes one GPU",
        ),
        (
            "{engine: vllm, students: {smollm2-135m: {quantisation: nf4}}}",
            "quantisation: nf4 weights cannot be handed to vLLM as they learn",
        ),
    ],
)
def test_what_would_fail_later_is_refused_at_once(change, said):
    from selfrefine.study.design import Study
    from selfrefine.study.open_study import merge, read_configuration

    config = read_configuration([REPOSITORY / "config/config.yaml"])
    config["study"]["recipes"] = ["grpo"]
    config["refine"] |= {"batch_size": 16, "micro_batch_size": 4}
    Study.read(config)
    merge(config, yaml.safe_load(change))
    with pytest.raises(UserError, match=said):
        Study.read(config)


def test_items_whose_prompts_are_too_long_are_left_out_and_counted(guessing, tmp_path):
    long = {**ITEMS[0], "id": "f" * 16, "question": "Box 1 is red today. " * 40}
    noted = Noted(guessing, tmp_path, items=[*ITEMS, long], training={"max_length": 200})
    assert noted.asked.counts == {"share": 100, "used": 12, "too_long": 1}
    with pytest.raises(UserError, match=r"no item is left to ask .* refine.max_length 20 together"):
        Noted(guessing, tmp_path, training={"max_length": 20})


def test_a_prompt_with_two_bos_tokens_is_refused(guessing):
    start = Start.open(guessing, "auto")
    start.tokenizer.chat_template = "{{ bos_token }}" + start.tokenizer.chat_template
    with pytest.raises(UserError, match="begins with '<|im_start|>' twice"):
        ask({item["id"]: item for item in ITEMS}, RefineOnlineSettings(**settings_of()), start.tokenizer)
