"""Both training stages on a tiny model: what is learned, against what reference, and what a torn run leaves."""

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file

from conftest import INSTRUCTION, REPOSITORY, record_model
from conftest import run_training as run
from selfrefine.data.prompts import messages
from selfrefine.errors import UserError
from selfrefine.models import processes
from selfrefine.models.checkpoints import load_checkpoint, load_model, load_tokenizer, open_checkpoint
from selfrefine.schema.optimisation import Lora
from selfrefine.schema.prompt import Prompt
from selfrefine.schema.stages import InstructSettings, RefineSettings
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.store.provenance import read_record
from selfrefine.store.run import Run
from selfrefine.training.batches import EpochOrder, count_updates, micro_batches
from selfrefine.training.encoding import check_example, encode_completion, encode_prompt
from selfrefine.training.examples import Examples, encode_demonstrations, encode_pairs
from selfrefine.training.objectives.pairwise import PairTrainer, margin_loss, odds_ratio_loss
from selfrefine.training.packed_rows import Row
from selfrefine.training.refine_phase import preference_trainer
from selfrefine.training.resumption import GATHERED, last_checkpoint, open_scratch, run_to_the_end
from selfrefine.training.trainable_weights import adapter_weights, lora_config
from selfrefine.training.trainer_arguments import common_arguments, on_one_gpu
from selfrefine.training.training_log import refine_rows, tokens_passed

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


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


def chat(item=ITEMS[0]):
    return messages(item, Prompt(**PROMPT), "cot")


def test_completions_end_with_the_stop_token_and_nothing_after_it(tokenizer):
    ids = encode_completion(tokenizer, chat(), "The answer is A.")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids) == "The answer is A.<|im_end|>"
    assert ids.count(tokenizer.eos_token_id) == 1


def test_a_cut_completion_has_no_stop_token(tokenizer):
    assert tokenizer.decode(encode_completion(tokenizer, chat(), "The answ", finished=False)) == "The answ"


def test_the_training_prompt_is_the_engines_prompt(tokenizer, tiny_model):
    from selfrefine.engines.transformers import TransformersEngine

    engine = TransformersEngine(load_model(tiny_model, "float32"), tokenizer, {}, 1)
    assert encode_prompt(tokenizer, chat()) == engine.encode(chat())


def test_a_template_that_hides_the_prompt_is_refused(tokenizer):
    import copy

    other = copy.copy(tokenizer)
    other.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="chat template"):
        encode_completion(other, chat(), "A")


@pytest.mark.parametrize(
    ("ids", "labels", "prompt_length", "message"),
    [
        ([1, 9, 10, 2], [1, -100, 10, 2], 2, "prompt carries loss"),
        ([1, 9, 10, 2], [-100, -100, -100, 2], 2, "labels are not its tokens"),
        ([1, 9, 10, 11], [-100, -100, 10, 11], 2, "not the stop token"),
        ([1, 1, 10, 2], [-100, -100, 10, 2], 2, "begins twice"),
    ],
)
def test_the_check_of_an_example_refuses(tokenizer, ids, labels, prompt_length, message):
    special = {1: tokenizer.bos_token_id, 2: tokenizer.eos_token_id}
    ids, labels = ([special.get(i, i) for i in row] for row in (ids, labels))
    with pytest.raises(UserError, match=message):
        check_example(ids, labels, prompt_length, tokenizer)


def test_updates_count_the_last_partial_batch():
    assert count_updates(10, 4, 3) == 9
    assert count_updates(8, 4, 0.5) == 1


def instruct_settings(**training):
    settings = {
        "epochs": 2,
        "batch_size": 4,
        "micro_batch_size": 2,
        "learning_rate": 0.01,
        "lora": {"dropout": 0.1},
        "save_every": 2,
    }
    return {"prompt": PROMPT, "dtype": "float32", "training": settings | training}


def instruct_command(folder, base_checkpoint, **training):
    write_jsonl(folder / "items.jsonl", ITEMS)
    demonstrations = [
        {"id": f"{i['id']}-cot-0", "item": i["id"], "text": "The answer is A.", "tokens": 6} for i in ITEMS
    ]
    write_jsonl(folder / "demonstrations.jsonl", demonstrations)
    return [
        *(
            "python",
            "scripts/instruct.py",
            "--settings",
            json.dumps(instruct_settings(**training)),
            "--start",
            base_checkpoint,
        ),
        *("--items", folder / "items.jsonl", "--demonstrations", folder / "demonstrations.jsonl"),
        *("--record", folder / "out/record.json"),
    ]


TWO_PROCESSES = (
    *("accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"),
)
SHARDED = (*TWO_PROCESSES, "tests/sharded.py")


@pytest.fixture(scope="module")
def instructed(tmp_path_factory, base_checkpoint):
    folder = tmp_path_factory.mktemp("instructed")
    run(*instruct_command(folder, base_checkpoint))
    return folder


def made(folder) -> dict:
    """The files that a checkpoint's record names, with size and sha256; its folder holds no others."""
    outputs = read_record(folder / "record.json").outputs
    assert sorted([*outputs, str(folder / "record.json")]) == sorted(map(str, folder.rglob("*")))
    return {str(Path(path).relative_to(folder)): state for path, state in outputs.items()}


def test_instruct_learns_and_leaves_a_whole_checkpoint(instructed, tiny_model, base_checkpoint):
    losses = [row["loss"] for row in read_jsonl(instructed / "out/training.jsonl")]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    folder, adapter, weights = open_checkpoint(instructed / "out/record.json")
    assert (folder, adapter) == (tiny_model, instructed / "out")
    assert sorted(weights["trained"]) == ["adapter_config.json", "adapter_model.safetensors"]
    assert "model.safetensors" in weights["model"]
    assert sorted(made(instructed / "out")) == [*sorted(weights["trained"]), "training.jsonl"]
    record = read_record(instructed / "out/record.json")
    # No default is written out in it.
    assert (record.settings, record.seed, record.model) == (instruct_settings(), 0, str(base_checkpoint))
    assert {str(tiny_model / "model.safetensors"), str(instructed / "items.jsonl")} < record.inputs.keys()
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert any(tensor.abs().sum() > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_instruct_gives_the_same_bytes_twice(instructed, base_checkpoint, tmp_path):
    run(*instruct_command(tmp_path, base_checkpoint))
    assert made(tmp_path / "out") == made(instructed / "out")
    same = [read_record(folder / "out/record.json").content for folder in (tmp_path, instructed)]
    assert same[0] == same[1]


def test_a_training_killed_before_its_record_only_writes_its_adapter(instructed, base_checkpoint, tmp_path):
    command = instruct_command(tmp_path, base_checkpoint)
    program = tmp_path / "killed.py"
    program.write_text(
        "import os, sys\nsys.path.insert(0, 'scripts')\nfrom selfrefine.store.run import Run\nimport instruct\n"
        "Run.record = lambda *a, **k: os._exit(9)\ninstruct.main()\n"
    )
    assert run("python", program, *command[2:], check=False).returncode == 9
    assert (tmp_path / "out/adapter_model.safetensors").exists() and not (tmp_path / "out/record.json").exists()
    assert (tmp_path / "out/trainer/checkpoint-6").exists()
    outcome = run(*command)
    assert "going on from checkpoint-6" in outcome.stdout
    # What was kept to go on from is gone, too.
    assert made(tmp_path / "out") == made(instructed / "out")


def test_what_is_made_already_is_not_made_again(instructed, base_checkpoint):
    before = (instructed / "out/adapter_model.safetensors").stat()
    outcome = run(*instruct_command(instructed, base_checkpoint))
    assert "made already" in outcome.stdout
    assert (instructed / "out/adapter_model.safetensors").stat().st_ctime_ns == before.st_ctime_ns


def test_other_settings_do_not_overwrite_a_checkpoint(instructed, base_checkpoint):
    before = {path: path.read_bytes() for path in (instructed / "out").iterdir()}
    outcome = run(*instruct_command(instructed, base_checkpoint, learning_rate=0.02), check=False)
    assert outcome.returncode == 1
    assert "made with other settings (training.learning_rate: 0.01 → 0.02)" in outcome.stderr
    assert {path: path.read_bytes() for path in (instructed / "out").iterdir()} == before


def dying(program, stage, update):
    """A stage whose processes die after a number of updates."""
    program.write_text(
        "import os, sys\nsys.path.insert(0, 'scripts')\n"
        f"from selfrefine.training.trainer_mixins import PackedUpdates\nimport {stage}\n"
        "step = PackedUpdates.training_step\n"
        "def dying(self, *a, **k):\n"
        f"    if self.state.global_step == {update}: os._exit(9)\n"
        "    return step(self, *a, **k)\n"
        f"PackedUpdates.training_step = dying\n{stage}.main()\n"
    )
    return program


@pytest.mark.parametrize("update", [3, 5], ids=["first epoch", "second epoch"])
def test_instruct_killed_after_a_checkpoint_ends_with_the_same_weights(instructed, base_checkpoint, tmp_path, update):
    command = instruct_command(tmp_path, base_checkpoint)
    program = dying(tmp_path / "killed.py", "instruct", update)
    killed = run("python", program, *command[2:], check=False)
    assert killed.returncode == 9
    assert not (tmp_path / "out/record.json").exists()
    checkpoint = last_checkpoint(tmp_path / "out/trainer")
    assert checkpoint.name == f"checkpoint-{update - 1}"
    torn = tmp_path / f"out/trainer/checkpoint-{update + 1}"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    outcome = run(*command)
    assert f"going on from checkpoint-{update - 1}" in outcome.stdout
    assert made(tmp_path / "out") == made(instructed / "out")


def test_a_training_that_stops_early_is_not_taken_for_finished(base_checkpoint, tmp_path):
    command = instruct_command(tmp_path, base_checkpoint)
    program = tmp_path / "stopping.py"
    program.write_text(
        "import sys\nsys.path.insert(0, 'scripts')\nfrom selfrefine.training.trainer_mixins import PackedUpdates\n"
        "from selfrefine.programs import cli\nimport instruct\n"
        "step = PackedUpdates.training_step\n"
        "def stopping(self, *a, **k):\n"
        "    self.control.should_training_stop = self.state.global_step == 3\n"
        "    return step(self, *a, **k)\n"
        "PackedUpdates.training_step = stopping\ncli.run(instruct.main)\n"
    )
    stopped = run("python", program, *command[2:], check=False)
    assert stopped.returncode == 1
    assert re.search(r"error: training stopped at update \d of 6; run again", stopped.stderr)
    assert not (tmp_path / "out/record.json").exists() and not (tmp_path / "out/adapter_model.safetensors").exists()


@pytest.mark.parametrize("changed", ["settings", "code", "inputs"])
def test_a_trainers_folder_of_other_settings_code_or_inputs_is_not_used(tmp_path, changed):
    data = tmp_path / "data.jsonl"
    data.write_text("1")
    first, same, other = (
        Run(REPOSITORY / "scripts/refine.py", {"rate": 1}, [data], tmp_path / "record.json") for _ in range(3)
    )
    open_scratch(tmp_path / "trainer", first)
    (tmp_path / "trainer/checkpoint-2").mkdir()
    open_scratch(tmp_path / "trainer", same)
    assert (tmp_path / "trainer/checkpoint-2").exists()
    if changed == "settings":
        other.settings = {"rate": 2}
    elif changed == "code":
        other.code = "0" * 16
    else:
        data.write_text("2")
    open_scratch(tmp_path / "trainer", other)
    assert not (tmp_path / "trainer/checkpoint-2").exists()


def trainer_of(tiny_model, tokenizer, folder, examples, objective=None, **training):
    """Phase 2's trainer on examples by hand, from the base model."""
    settings = RefineSettings.model_validate(refine_settings(objective, lora={"dropout": 0.0}, **training))
    arguments = common_arguments(settings.training, folder, 0, 1, "float32")
    model = load_model(tiny_model, "float32", training=True)
    return preference_trainer(model, settings, Examples(examples, examples), arguments, tokenizer)


def gradient_norm(trainer) -> float:
    """Of the first update, which takes all examples."""
    (update,) = trainer.get_train_dataloader()
    trainer.training_step(trainer.model, update)
    return sum(p.grad.pow(2).sum().item() for p in trainer.model.parameters() if p.grad is not None) ** 0.5


def five_examples(loss: str) -> list[dict]:
    """Examples of very different lengths, two of them of one question."""
    ids = [[3 + (7 * i + j) % 90 for j in range(20 + i)] for i in (0, 1, 2, 3, 3)]
    answers = [[5 + (11 * i + j) % 90 for j in range(3 + 9 * i)] for i in range(10)]
    if loss == "sft":
        return [
            {"input_ids": ids[i] + answers[i], "completion_mask": [0] * len(ids[i]) + [1] * len(answers[i])}
            for i in range(5)
        ]
    if loss == "kto":
        return [{"prompt_ids": ids[i], "completion_ids": answers[i], "label": i % 2 == 0} for i in range(5)]
    return [{"prompt_ids": ids[i], "chosen_ids": answers[i], "rejected_ids": answers[9 - i]} for i in range(5)]


@pytest.mark.parametrize(
    "objective",
    [
        {},
        {"nll": 0.5},
        {"loss": "ipo"},
        {"loss": "sigmoid_norm", "reference": "none", "beta": 2.0, "margin": 1.0},
        {"loss": "odds_ratio", "reference": "none", "beta": 0.2, "nll": 1.0},
        {"loss": "sft"},
        {"loss": "kto"},
        {"loss": "robust"},
        {"loss": "hinge"},
    ],
    ids=str,
)
def test_an_update_is_the_same_however_it_is_cut(objective, tiny_model, tokenizer, tmp_path):
    """Five examples in passes of 8, 4, 3, 2 and 1; KTO, which TRL refuses to pass one by one, in passes of 2 at least."""
    examples, norms, losses = five_examples(objective.get("loss", "")), [], []
    for size in (8, 4, 3, 2, 2 if objective.get("loss") == "kto" else 1):
        settings = {"batch_size": 24, "micro_batch_size": size}
        trainer = trainer_of(tiny_model, tokenizer, tmp_path / str(size), examples, objective, **settings)
        norms.append(gradient_norm(trainer))
        losses.append(trainer.evaluate()["eval_loss"])
    assert norms[0] > 0.01
    assert norms == pytest.approx([norms[0]] * 5, rel=1e-4)
    assert losses == pytest.approx([losses[0]] * 5, rel=1e-5)


@pytest.mark.parametrize("loss", ["sigmoid", "sft"])
def test_an_update_is_that_of_plain_trl(loss, tiny_model, tokenizer, tmp_path):
    """Of TRL's own trainers, which take the five examples as one padded batch."""
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    examples = five_examples(loss)
    ours = trainer_of(
        tiny_model, tokenizer, tmp_path / "ours", examples, {"loss": loss}, batch_size=8, micro_batch_size=2
    )
    options = {"output_dir": str(tmp_path), "per_device_train_batch_size": 5, "use_cpu": True, "bf16": False, "seed": 0}
    options |= {"max_length": None, "report_to": "none"}
    trainer_class, config = (SFTTrainer, SFTConfig) if loss == "sft" else (DPOTrainer, DPOConfig)
    extra = {"completion_only_loss": True} if loss == "sft" else {"beta": 0.1}
    if loss != "sft":
        trainer_class = type("Tokenised", (DPOTrainer,), {"_prepare_dataset": lambda self, dataset, *_: dataset})
    theirs = trainer_class(
        model=load_model(tiny_model, "float32", training=True),
        args=config(**options, **extra, gradient_checkpointing=False),
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        peft_config=lora_config(Lora(dropout=0.0)),
    )
    torch.manual_seed(0)
    for one, other in zip(adapter_weights(ours.model).items(), adapter_weights(theirs.model).items(), strict=True):
        assert one[0] == other[0] and torch.equal(one[1], other[1])
    (batch,) = theirs.get_train_dataloader()
    theirs.current_gradient_accumulation_steps = 1
    wanted = theirs.training_step(theirs.model, batch, None)
    (update,) = ours.get_train_dataloader()
    found = ours.training_step(ours.model, update)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    for (name, one), (_, other) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one.grad, other.grad, atol=1e-5 * max(other.grad.abs().max(), 1e-2)), name


SIMPO = {"loss": "sigmoid_norm", "reference": "none", "beta": 2.0}


def test_simpos_loss_is_log_sigmoid_of_the_length_normalised_lead_minus_the_margin():
    log_probs, lengths = [(-12.0, -30.0), (-8.0, -5.0)], [(4, 6), (2, 5)]
    expected = 0.0
    for (chosen, rejected), (chosen_length, rejected_length) in zip(log_probs, lengths, strict=True):
        lead = 2.0 * (chosen / chosen_length - rejected / rejected_length)
        expected -= math.log(1 / (1 + math.exp(-(lead - 1.5)))) / 2
    means = (torch.tensor(log_probs) / torch.tensor(lengths)).unbind(1)
    assert margin_loss(*means, beta=2.0, margin=1.5).item() == pytest.approx(expected, rel=1e-6)


def test_orpos_term_is_log_sigmoid_of_the_log_odds_ratio():
    chosen, rejected = torch.tensor([-0.5, -2.0]), torch.tensor([-1.5, -0.1])
    odds = [[math.exp(p) / (1 - math.exp(p)) for p in side.tolist()] for side in (chosen, rejected)]
    expected = -0.2 * sum(math.log(good / (good + bad)) for good, bad in zip(*odds, strict=True)) / 2
    assert odds_ratio_loss(chosen, rejected, 0.2).item() == pytest.approx(expected, rel=1e-6)


class PlantedMargin(PairTrainer):
    """SimPO's margin by another way: as a reference's log-probabilities; TRL's loss subtracts their mean per token."""

    def _precompute_ref_logps(self, dataset, name, batch_size):
        planted = [1.5 / 2.0 * len(row["chosen_ids"]) for row in dataset]
        dataset = dataset.add_column("ref_chosen_logps", planted)
        return dataset.add_column("ref_rejected_logps", [0.0] * len(dataset))


@pytest.mark.parametrize("nll", [0.0, 0.5])
def test_simpos_margin_has_the_loss_and_gradient_of_one_that_is_planted_in_the_reference(
    nll, tiny_model, tokenizer, tmp_path, monkeypatch
):
    examples, sizes, found = five_examples("sigmoid"), {"batch_size": 8, "micro_batch_size": 2}, []
    for trainer_class, margin in ((PairTrainer, 1.5), (PlantedMargin, 0.0)):
        monkeypatch.setattr("selfrefine.training.refine_phase.PairTrainer", trainer_class)
        objective = SIMPO | {"margin": margin, "nll": nll}
        trainer = trainer_of(tiny_model, tokenizer, tmp_path / trainer_class.__name__, examples, objective, **sizes)
        (update,) = trainer.get_train_dataloader()
        loss = trainer.training_step(trainer.model, update).item()
        slopes = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
        found.append((loss, trainer.evaluate()["eval_loss"], slopes))
    (loss, validation, slopes), (planted_loss, planted_validation, planted_slopes) = found
    assert (loss, validation) == pytest.approx((planted_loss, planted_validation), rel=1e-6)
    assert slopes.keys() == planted_slopes.keys() and max(slope.abs().max() for slope in slopes.values()) > 0.01
    for name, slope in slopes.items():
        assert torch.allclose(slope, planted_slopes[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("number", [1, 2, 5, 8, 9])
def test_processes_share_an_update_out_in_rounds(number, processes):
    """Each example counts once, and all processes make as many passes of as many examples."""
    cuts = [micro_batches(list(range(number)), 2, processes, process) for process in range(processes)]
    counted = dict.fromkeys(range(number), 0.0)
    for rounds in zip(*cuts, strict=True):
        assert len({len(part["examples"]) for part in rounds}) == 1 and len(rounds[0]["examples"]) <= 2
        assert len({(part["fraction"], part["copies"]) for part in rounds}) == 1
        distinct = {example for part in rounds for example in part["examples"]}
        assert rounds[0]["fraction"] == pytest.approx(len(distinct) / number)
        for part in rounds:
            for example in part["examples"]:
                counted[example] += 1 / part["copies"]
    assert counted == pytest.approx(dict.fromkeys(range(number), 1.0))


@pytest.mark.parametrize("loss", ["sigmoid", "kto", "sft"])
def test_what_is_logged_of_responses_is_the_same_however_an_update_is_cut(loss, tiny_model, tokenizer, tmp_path):
    """KTO's three chosen and two rejected responses, too, which fall into passes unevenly."""
    logs = []
    for size in (8, 2):
        settings = {"batch_size": 8, "micro_batch_size": size, "epochs": 1, "evaluate_every": 1}
        folder = tmp_path / str(size)
        trainer = trainer_of(tiny_model, tokenizer, folder, five_examples(loss), {"loss": loss}, **settings)
        trainer.train()
        trainer.evaluate()
        logs.append(refine_rows(trainer.state.log_history))
    one, other = logs
    assert [row["split"] for row in one] == ["train", "validation"]
    for ours, theirs in zip(one, other, strict=True):
        assert ours["chosen_logp"] < ours["chosen_token_logp"] < 0
        # Before the first update both rewards are 0, so that rounding says which is higher.
        for name in {*ours} - {"step", "split"} - ({"accuracy"} if ours["split"] == "train" else set()):
            assert ours[name] == (None if theirs[name] is None else pytest.approx(theirs[name], rel=1e-4, abs=1e-5)), (
                name
            )


def test_what_becomes_of_each_side_is_logged_beside_the_margin(instructed, tmp_path):
    settings = {"batch_size": 8, "micro_batch_size": 8, "epochs": 30, "evaluate_every": 10, "learning_rate": 0.01}
    run(*refine_command(tmp_path, instructed / "out/record.json", **settings))
    rows = [row for row in read_jsonl(tmp_path / "out/training.jsonl") if row["split"] == "validation"]
    assert rows[-1]["margin"] > 0
    for row in rows:
        assert row["margin"] == pytest.approx(row["chosen_reward"] - row["rejected_reward"], rel=1e-4, abs=1e-6)
    assert rows[-1]["rejected_token_logp"] < rows[0]["rejected_token_logp"]


def test_pairs_of_one_question_pass_together(tiny_model, tokenizer, tmp_path):
    examples = five_examples("sigmoid")
    trainer = trainer_of(tiny_model, tokenizer, tmp_path, [*examples, examples[0]], batch_size=8, micro_batch_size=2)
    order = [tuple(example["prompt_ids"]) for example in trainer.arrange([*examples, examples[0]])]
    assert order[0] == order[1] and order[4] == order[5]


def test_tokens_are_counted_as_trl_does_and_as_they_pass(tiny_model, tokenizer, tmp_path):
    history = [
        {"num_tokens": 10, "computed_tokens": 7},
        {"num_tokens": 30, "computed_tokens": 20},
        {"eval_loss": 1.0},
        {"num_tokens": 20, "computed_tokens": 13},
    ]
    assert tokens_passed(history) == {"tokens_seen": 50, "tokens_computed": 33}
    examples = five_examples("sigmoid")
    trainer = trainer_of(tiny_model, tokenizer, tmp_path, examples, batch_size=8, micro_batch_size=8)
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    sequences = [
        example["prompt_ids"] + example[f"{side}_ids"] for side in ("chosen", "rejected") for example in examples
    ]
    assert logged["num_tokens"] == sum(map(len, sequences))
    assert logged["computed_tokens"] == len(Row(sequences).tokens) < sum(map(len, sequences))


def test_too_long_demonstrations_are_dropped_and_counted(tokenizer):
    rows = [
        {"id": f"{item['id']}-cot-0", "item": item["id"], "text": "red " * (1 + 120 * (i % 2))}
        for i, item in enumerate(ITEMS)
    ]
    settings = InstructSettings.model_validate(instruct_settings(max_length=150))
    examples, counts = encode_demonstrations(rows, {item["id"]: item for item in ITEMS}, settings, tokenizer)
    assert counts == {"share": 100, "used": 6, "too_long": 6, "empty": 0, "not_spelled": 0}
    assert (len(examples.train), len(examples.validation)) == (6, 0)


def pairs():
    made = []
    for i, item in enumerate(ITEMS):
        good = {"id": "g", "text": "The answer is A.", "source": "student cot", "finished": True, "correct": True}
        bad = {
            "id": "b",
            "text": "The answer is B.",
            "source": "student plain",
            "finished": i % 2 == 0,
            "correct": False,
        }
        split = "validation" if i < 4 else "train"
        made.append(
            {
                "id": f"{item['id']}-0",
                "item": item["id"],
                "split": split,
                "prompt": "cot",
                "chosen": good,
                "rejected": bad,
            }
        )
    return made


def refine_settings(objective=None, **training):
    settings = {
        "epochs": 2,
        "batch_size": 4,
        "micro_batch_size": 4,
        "learning_rate": 0.005,
        "warmup_steps": 0,
        "evaluate_every": 2,
    }
    return {"prompt": PROMPT, "dtype": "float32", "objective": objective or {}, "training": settings | training}


def test_pairs_are_tokenised_as_they_were_sampled(tokenizer):
    settings = RefineSettings.model_validate(refine_settings())
    examples, counts = encode_pairs(pairs(), {item["id"]: item for item in ITEMS}, settings, tokenizer)
    assert counts == {"train": 8, "validation": 4, "too_long": 0, "empty": 0, "not_spelled": 0}
    finished, cut = examples.validation[:2]
    assert tokenizer.decode(finished["rejected_ids"]) == "The answer is B.<|im_end|>"
    assert tokenizer.decode(cut["rejected_ids"]) == "The answer is B."
    assert tokenizer.decode(finished["chosen_ids"]) == "The answer is A.<|im_end|>"


def refine_command(folder, start, **training):
    write_jsonl(folder / "items.jsonl", ITEMS)
    write_jsonl(folder / "pairs.jsonl", pairs())
    return [
        *("python", "scripts/refine.py", "--settings", json.dumps(refine_settings(**training)), "--start", start),
        *("--items", folder / "items.jsonl", "--pairs", folder / "pairs.jsonl"),
        *("--record", folder / "out/record.json"),
    ]


def log_probability(model, tokenizer, pair, side) -> float:
    """The summed log-probability of one side of a pair, by a plain forward pass."""
    item, row = next(item for item in ITEMS if item["id"] == pair["item"]), pair[side]
    prompt, answer = (
        encode_prompt(tokenizer, chat(item)),
        encode_completion(tokenizer, chat(item), row["text"], row["finished"]),
    )
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].float().log_softmax(-1)
    return sum(logits[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))


def margin(policy, against, tokenizer) -> float:
    """By how much the validation pairs' chosen responses gained on the rejected ones, in nats times beta."""
    gaps = [
        log_probability(policy, tokenizer, pair, "chosen")
        - log_probability(against, tokenizer, pair, "chosen")
        - log_probability(policy, tokenizer, pair, "rejected")
        + log_probability(against, tokenizer, pair, "rejected")
        for pair in pairs()[:4]
    ]
    return 0.1 * sum(gaps) / len(gaps)


def test_refine_starts_from_and_is_measured_against_the_instructed_adapter(instructed, tiny_model, tokenizer, tmp_path):
    """Recomputes the first validation loss by hand: the reference is the instructed adapter, not the base model."""
    run(*refine_command(tmp_path, instructed / "out/record.json", epochs=1, batch_size=8, micro_batch_size=8))
    rows = read_jsonl(tmp_path / "out/training.jsonl")
    first = next(row for row in rows if row["split"] == "train")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    reference = PeftModel.from_pretrained(load_model(tiny_model, "float32"), instructed / "out").eval()
    policy = PeftModel.from_pretrained(load_model(tiny_model, "float32"), tmp_path / "out").eval()
    base = load_model(tiny_model, "float32")

    (validation,) = [row for row in rows if row["split"] == "validation"]
    assert validation["margin"] > 0
    assert validation["margin"] == pytest.approx(margin(policy, reference, tokenizer), rel=1e-3)
    assert validation["margin"] != pytest.approx(margin(policy, base, tokenizer), rel=0.1)


@pytest.mark.parametrize(
    "objective",
    [
        {"nll": 0.5},
        {"loss": "ipo"},
        {"loss": "sigmoid_norm", "reference": "none", "beta": 2.0, "margin": 1.0},
        {"loss": "sigmoid", "reference": "none", "beta": 0.3},
        {"loss": "odds_ratio", "reference": "none", "beta": 0.2, "nll": 1.0},
        {"loss": "sft"},
    ],
    ids=str,
)
def test_the_loss_is_the_objectives(objective, instructed, tiny_model, tokenizer, tmp_path):
    """Recomputes the validation loss after one update by hand, from the trained adapter's log-probabilities."""
    settings = {"epochs": 1, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.001}
    run(*refine_command(tmp_path, instructed / "out/record.json", objective=objective, **settings))
    (validation,) = [row for row in read_jsonl(tmp_path / "out/training.jsonl") if row["split"] == "validation"]
    policy = PeftModel.from_pretrained(load_model(tiny_model, "float32"), tmp_path / "out").eval()
    start = PeftModel.from_pretrained(load_model(tiny_model, "float32"), instructed / "out").eval()
    beta, norm = objective.get("beta", 0.1), objective.get("loss") in ("ipo", "sigmoid_norm", "odds_ratio")
    losses, rewards, likelihood, tokens, lengths = [], [], 0.0, 0, [0, 0]
    for pair in pairs()[:4]:
        scores, gains = [], []
        for side in ("chosen", "rejected"):
            score = own = log_probability(policy, tokenizer, pair, side)
            if objective.get("reference") != "none":
                score -= log_probability(start, tokenizer, pair, side)
            length = len(encode_completion(tokenizer, chat(ITEMS[0]), pair[side]["text"], pair[side]["finished"]))
            lengths[side == "rejected"] += length
            scores.append(score / length if norm else score)
            gains.append(score)
            if side == "chosen":
                likelihood, tokens = likelihood - own, tokens + length
        rewards.append(beta * (gains[0] - gains[1]))
        gap = scores[0] - scores[1]
        if objective.get("loss") == "ipo":
            losses.append((gap - 1 / (2 * beta)) ** 2)
        elif objective.get("loss") == "odds_ratio":
            chosen_odds, rejected_odds = (math.exp(score) / (1 - math.exp(score)) for score in scores)
            losses.append(beta * math.log1p(rejected_odds / chosen_odds))
        else:
            losses.append(math.log1p(math.exp(-(beta * gap - objective.get("margin", 0)))))
    expected = sum(losses) / 4 + objective.get("nll", 0) * likelihood / tokens
    if objective.get("loss") == "sft":
        expected = likelihood / tokens
    assert validation["loss"] == pytest.approx(expected, rel=1e-3)
    for number, side in enumerate(("chosen", "rejected")):
        if side == "rejected" and objective.get("loss") == "sft":
            assert (
                validation["rejected_logp"] is validation["rejected_token_logp"] is validation["chosen_reward"] is None
            )
            continue
        logps = [log_probability(policy, tokenizer, pair, side) for pair in pairs()[:4]]
        assert validation[f"{side}_logp"] == pytest.approx(sum(logps) / 4, rel=1e-3)
        assert validation[f"{side}_token_logp"] == pytest.approx(sum(logps) / lengths[number], rel=1e-3)
    # SimPO's margin is a term of the loss, not of the rewards.
    wanted = None if objective.get("loss") == "sft" else pytest.approx(sum(rewards) / 4, rel=1e-3, abs=1e-6)
    assert validation["margin"] == wanted
    if wanted is not None:
        assert validation["chosen_reward"] - validation["rejected_reward"] == wanted


def test_kto_judges_each_response_against_how_far_the_student_has_moved(instructed, tiny_model, tokenizer, tmp_path):
    """Recomputes the kept validation loss by hand; items with a response on one side only count too."""
    settings = {"epochs": 1, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.001}
    command = refine_command(tmp_path, instructed / "out/record.json", objective={"loss": "kto"}, **settings)
    rows = pairs()
    rows[0]["rejected"] = None
    rows[5]["chosen"] = None
    rows[6]["chosen"] = None
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    run(*command)
    record = read_record(tmp_path / "out/record.json")
    dropped = {"too_long": 0, "empty": 0, "not_spelled": 0}
    assert record.figures["pairs"] == {"train": 14, "validation": 7, **dropped}
    log = read_jsonl(tmp_path / "out/training.jsonl")
    # Nothing has moved before the first update: each response counts a half, the rarer kind as much in all as the
    # other.
    first = next(row for row in log if row["split"] == "train")
    assert 0.5 <= first["loss"] <= 0.5 * 8 / 6
    policy = PeftModel.from_pretrained(load_model(tiny_model, "float32"), tmp_path / "out").eval()
    start = PeftModel.from_pretrained(load_model(tiny_model, "float32"), instructed / "out").eval()
    texts = [(pair, side) for pair in rows[:4] for side in ("chosen", "rejected") if pair[side]]
    order = Dataset.from_list([{"i": i} for i in range(7)]).shuffle(seed=0)["i"]
    gains = {
        (p, a): log_probability(policy, tokenizer, {"item": rows[p]["item"], "a": text}, "a")
        - log_probability(start, tokenizer, {"item": rows[p]["item"], "a": text}, "a")
        for p in range(4)
        for a, text in enumerate(pair[side] for pair, side in texts)
    }
    expected = []
    # All validation examples share one estimate of how far the student has moved.
    for batch in (order,):
        asked = [rows.index(texts[i][0]) for i in batch]
        moved = max(sum(gains[asked[k], batch[k - 1]] for k in range(len(batch))) / len(batch), 0)
        for i, p in zip(batch, asked, strict=True):
            gain = 0.1 * (gains[p, i] - moved)
            good = texts[i][1] == "chosen"
            weight = 8 / 6 if good else 1
            expected.append(weight * (1 - 1 / (1 + math.exp(-gain if good else gain))))
    kept = min((row for row in log if row["split"] == "validation"), key=lambda row: row["loss"])
    assert kept["loss"] == pytest.approx(sum(expected) / len(expected), rel=2e-3)
    for side, count in (("chosen", 4), ("rejected", 3)):
        mine = [pair for pair, kind in texts if kind == side]
        logps = [log_probability(policy, tokenizer, pair, side) for pair in mine]
        gained = [after - log_probability(start, tokenizer, p, side) for after, p in zip(logps, mine, strict=True)]
        assert kept[f"{side}_logp"] == pytest.approx(sum(logps) / count, rel=1e-3)
        assert kept[f"{side}_reward"] == pytest.approx(0.1 * sum(gained) / count, rel=1e-2, abs=1e-5)


def test_kto_sets_each_question_beside_the_batchs_last_answer(tiny_model, tokenizer, tmp_path):
    rows = [{"prompt_ids": [5, 6], "completion_ids": [10 + i], "label": i % 2 == 0} for i in range(7)]
    settings = RefineSettings.model_validate(refine_settings(objective={"loss": "kto"}, micro_batch_size=4))
    arguments = common_arguments(settings.training, tmp_path, 0, 1, "float32")
    examples = Examples(rows, rows[:2])
    trainer = preference_trainer(load_model(tiny_model, "float32"), settings, examples, arguments, tokenizer)
    own = [ids[0] for ids in trainer.train_dataset["completion_ids"]]
    beside = [ids[0] for ids in trainer.train_dataset["KL_completion_ids"]]
    assert sorted(own) == list(range(10, 17)) != own
    assert beside == [own[3], *own[:3], own[6], *own[4:6]]
    assert list(trainer._get_train_sampler()) == list(range(7))


def test_refine_killed_after_a_checkpoint_goes_on_from_the_adapter_that_was_trained(instructed, tmp_path):
    """Not from the reference's, which lies in a folder of its own there."""
    settings = {"epochs": 3, "evaluate_every": 2, "learning_rate": 0.01, "lora": {"dropout": 0.0}}
    run(*refine_command(tmp_path / "whole", instructed / "out/record.json", **settings))
    command = refine_command(tmp_path / "killed", instructed / "out/record.json", **settings)
    assert run("python", dying(tmp_path / "killed.py", "refine", 5), *command[2:], check=False).returncode == 9
    assert (tmp_path / "killed/out/trainer/checkpoint-4/ref/adapter_model.safetensors").exists()
    assert "going on from checkpoint-4" in run(*command).stdout
    whole, resumed = (read_jsonl(tmp_path / name / "out/training.jsonl") for name in ("whole", "killed"))
    assert resumed == whole and len({row["step"] for row in whole}) == 6
    adapters = [load_file(tmp_path / name / "out/adapter_model.safetensors") for name in ("whole", "killed")]
    assert all(torch.equal(tensor, adapters[1][name]) for name, tensor in adapters[0].items())


def test_refine_keeps_the_update_of_lowest_validation_loss(instructed, tmp_path):
    run(*refine_command(tmp_path, instructed / "out/record.json"))
    figures = read_record(tmp_path / "out/record.json").figures
    losses = {int(step): loss for step, loss in figures["validation_loss"].items()}
    assert figures["kept_update"] == min(losses, key=losses.get)
    assert len(losses) == 2


@pytest.mark.parametrize("start", ["instructed", "base"])
def test_a_student_without_pairs_is_left_as_it_was(start, instructed, base_checkpoint, tiny_model, tokenizer, tmp_path):
    checkpoint = instructed / "out/record.json" if start == "instructed" else base_checkpoint
    command = refine_command(tmp_path, checkpoint)
    write_jsonl(tmp_path / "pairs.jsonl", pairs()[4:5])
    assert "too few pairs to learn from" in run(*command).stdout
    record = read_record(tmp_path / "out/record.json")
    assert (record.figures["updates"], read_jsonl(tmp_path / "out/training.jsonl")) == (0, [])
    assert record.model == str(base_checkpoint)
    left = PeftModel.from_pretrained(load_model(tiny_model, "float32"), tmp_path / "out").eval()
    before = load_model(tiny_model, "float32")
    if start == "instructed":
        before = PeftModel.from_pretrained(before, instructed / "out").eval()
    scores = [log_probability(model, tokenizer, pairs()[0], "chosen") for model in (left, before)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_refine_from_a_base_model_trains_a_new_adapter(base_checkpoint, tmp_path):
    run(*refine_command(tmp_path, base_checkpoint))
    assert open_checkpoint(tmp_path / "out/record.json")[1] == tmp_path / "out"


@pytest.mark.parametrize("stage", ["instruct", "refine", "kto", "sft"])
def test_two_processes_learn_what_one_learns(stage, instructed, base_checkpoint, tmp_path):
    """On a CPU they speak through gloo. The examples of each update, its loss and the weights at the end are the same.

    The last update of an epoch has three examples: one for each process, and one that both take.
    """
    logs, adapters, counts = [], [], []
    for name, launcher in (("one", ()), ("two", TWO_PROCESSES)):
        if stage == "instruct":
            command = instruct_command(tmp_path / name, base_checkpoint, lora={"dropout": 0.0})
        else:
            start = without_dropout(instructed / "out", tmp_path / name / "start")
            objective = {"loss": "sigmoid" if stage == "refine" else stage}
            command = refine_command(tmp_path / name, start, micro_batch_size=2, objective=objective)
        rows = tmp_path / name / ("demonstrations.jsonl" if stage == "instruct" else "pairs.jsonl")
        write_jsonl(rows, read_jsonl(rows)[:-1])
        run(*(*launcher, *command[1:]) if launcher else command)
        record = read_record(tmp_path / name / "out/record.json")
        counts.append(record.figures["tokens_seen"])
        assert record.machine.get("processes", 1) == (2 if launcher else 1)
        logs.append(read_jsonl(tmp_path / name / "out/training.jsonl"))
        adapters.append(load_file(tmp_path / name / "out/adapter_model.safetensors"))
    one, two = logs
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for ours, theirs in zip(one, two, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        for name in {*ours} - {"step", "split", "loss", "learning_rate"}:
            assert ours[name] == (None if theirs[name] is None else pytest.approx(theirs[name], rel=1e-3, abs=1e-5)), (
                name
            )
    assert one[-1]["loss"] < one[0]["loss"] and counts[0] == counts[1]
    for name, tensor in adapters[0].items():
        assert torch.allclose(tensor, adapters[1][name], atol=1e-4), name


@pytest.mark.parametrize("stage", ["instruct", "refine"])
def test_weights_that_two_processes_shard_learn_what_whole_ones_learn(stage, instructed, base_checkpoint, tmp_path):
    """In full; refined in bfloat16 from merged weights, against them. Killed after an update, they go on from it."""
    steps, found = {}, {}
    for name, launcher in (("whole", ()), ("shared", SHARDED)):
        if stage == "instruct":
            command = instruct_command(tmp_path / name, base_checkpoint, method="full", learning_rate=0.003)
        else:
            start = instructed / "out/record.json"
            command = refine_command(tmp_path / name, start, micro_batch_size=2, method="full")
            command[3] = json.dumps(json.loads(command[3]) | {"dtype": "bfloat16"})
        if launcher:
            program = dying(tmp_path / "dying.py", stage, 3)
            killed = run(*launcher, program, *command[2:], check=False)
            assert killed.returncode
            kept = last_checkpoint(tmp_path / name / "out/trainer")
            assert kept.name == "checkpoint-2" and (kept / GATHERED).exists()
            assert "going on from checkpoint-2" in run(*launcher, *command[1:]).stdout
        else:
            run(*command)
        steps[name] = read_jsonl(tmp_path / name / "out/training.jsonl")
        found[name] = load_file(tmp_path / name / "out/model.safetensors")
    for ours, theirs in zip(steps["whole"], steps["shared"], strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    if stage == "refine":
        assert steps["shared"][0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert json.loads((tmp_path / "shared/out/config.json").read_text())["dtype"] == "bfloat16"
    for name, tensor in found["whole"].items():
        # Of weights that are saved in bfloat16, a few may be rounded to neighbours.
        apart = 2**-7 if tensor.dtype == torch.bfloat16 else 0
        assert torch.allclose(tensor, found["shared"][name], rtol=apart, atol=1e-3), name
        assert stage == "instruct" or (tensor != found["shared"][name]).float().mean() < 0.01, name


@pytest.mark.parametrize(("kept", "now", "said"), [(True, False, "that sharded"), (False, True, "that did not shard")])
def test_a_checkpoint_of_another_number_of_gpus_is_named_where_it_cannot_be_gone_on_from(tmp_path, kept, now, said):
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"global_step": 2}')
    if kept:
        (checkpoint / GATHERED).touch()
    with pytest.raises(UserError, match=f"checkpoint-2: was saved by a training {said} its .*gpus_to_train"):
        run_to_the_end(SimpleNamespace(is_fsdp_enabled=now), tmp_path, 4)
    assert (checkpoint / "trainer_state.json").exists()


def without_dropout(checkpoint, folder):
    """The record of a copy of a checkpoint whose adapter drops nothing out."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.0}))
    return record_model(folder, stage="instruct", model=read_record(checkpoint / "record.json").model)


@pytest.mark.parametrize(
    ("gpus", "launched", "asked"),
    [(False, True, {"cpu": True}), (True, False, {}), (True, True, {"backend": "cuda:nccl,cpu:gloo"})],
)
def test_processes_on_gpus_can_speak_about_the_hosts_memory_too(monkeypatch, gpus, launched, asked):
    """As accelerate has it for checkpoints that are gathered; there is no GPU here to see them do it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus)
    monkeypatch.setattr("accelerate.PartialState", lambda **options: options)
    monkeypatch.setenv("LOCAL_RANK", "0")
    if not launched:
        monkeypatch.delenv("LOCAL_RANK")
    assert processes.state() == asked


def test_an_update_that_cannot_be_shared_out_is_refused(monkeypatch, tmp_path):
    settings = RefineSettings.model_validate(refine_settings(batch_size=6, micro_batch_size=2))
    monkeypatch.setattr("selfrefine.training.trainer_arguments.state", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="batch_size 6 cannot be shared out among 2 processes in micro-batches of 2"):
        common_arguments(settings.training, tmp_path, 0, 1, "float32")


def test_a_process_that_sees_several_gpus_trains_on_one(tmp_path):
    from trl import DPOConfig

    arguments = DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    arguments._n_gpu = 4
    assert on_one_gpu(arguments).n_gpu == 1
    assert arguments.train_batch_size == arguments.per_device_train_batch_size


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    lengths = [3, 50, 4, 49, 5, 48, 6, 47] * 4
    order = EpochOrder(32, 4, 7, lengths)
    first = list(order)
    assert sorted(first) == list(range(32))
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    order.set_epoch(0)
    assert list(order) == first
    assert list(EpochOrder(32, 4, 8, lengths)) != first
    spreads = [max(found) - min(found) for found in ([lengths[i] for i in first[k : k + 4]] for k in range(4, 32, 4))]
    assert sum(spread <= 3 for spread in spreads) >= 5  # without grouping nearly every update holds both kinds


def packed_command(command, quantisation="nf4"):
    """A stage's command with another quantisation in its settings."""
    settings = json.loads(command[3])
    return [*command[:3], json.dumps(settings | {"quantisation": quantisation}), *command[4:]]


def test_what_is_trained_on_packed_weights_is_what_is_sampled_from(tiny_model, base_checkpoint, tokenizer, tmp_path):
    """Trains on 4-bit weights, and recomputes the margin by hand with the weights that generation unpacks."""
    pytest.importorskip("bitsandbytes")
    first = tmp_path / "instruct"
    run(*packed_command(instruct_command(first, base_checkpoint)))
    # At this learning rate an update of bfloat16 weights would round to nothing.
    settings = {"epochs": 1, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-6}
    run(*packed_command(refine_command(tmp_path / "slow", first / "out/record.json", **settings)))
    before, after = (load_file(folder / "out/adapter_model.safetensors") for folder in (first, tmp_path / "slow"))
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    moved = [(after[name] - before[name]).abs().max().item() for name in after]
    assert 5e-7 < max(moved) < 2e-6 and min(moved) > 0
    run(*packed_command(refine_command(tmp_path, first / "out/record.json", **settings | {"learning_rate": 0.005})))
    log = read_jsonl(tmp_path / "out/training.jsonl")
    assert next(row["loss"] for row in log if row["split"] == "train") == pytest.approx(math.log(2), abs=1e-6)
    (validation,) = [row for row in log if row["split"] == "validation"]
    policy, _, identity = load_checkpoint(tmp_path / "out/record.json", "float32", "nf4")
    start, _, _ = load_checkpoint(first / "out/record.json", "float32", "nf4")
    plain, _, _ = load_checkpoint(first / "out/record.json", "float32")
    assert identity["quantisation"] == "nf4"

    # On a CPU, packed weights are multiplied in bfloat16, whatever the dtype.
    assert validation["margin"] == pytest.approx(margin(policy, start, tokenizer), abs=0.02)
    assert (
        abs(margin(policy, plain, tokenizer) - margin(policy, start, tokenizer)) > 0.1
    )  # unrounded weights are another student
    assert margin(policy, start, tokenizer) > 0.05


def test_all_weights_can_be_trained(base_checkpoint, tiny_model, tokenizer, tmp_path):
    """Phase 1 in full, phase 2 from it in full and with an adapter, each against where it started."""
    first = tmp_path / "instruct"
    run(*instruct_command(first, base_checkpoint, method="full", learning_rate=0.003))
    folder, adapter, weights = open_checkpoint(first / "out/record.json")
    assert (folder, adapter) == (first / "out", None)
    assert {"tokenizer.json", "model.safetensors"} < weights["trained"].keys()
    losses = [row["loss"] for row in read_jsonl(first / "out/training.jsonl")]
    assert losses[-1] < losses[0]
    start, base = load_model(first / "out", "float32"), load_model(tiny_model, "float32")
    assert all(not torch.equal(a, b) for a, b in zip(start.parameters(), base.parameters(), strict=True))
    for method in ("full", "lora"):
        settings = {"epochs": 1, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.001, "method": method}
        run(*refine_command(tmp_path / method, first / "out/record.json", **settings))
        log = read_jsonl(tmp_path / method / "out/training.jsonl")
        assert next(row["loss"] for row in log if row["split"] == "train") == pytest.approx(math.log(2), abs=1e-6)
        (validation,) = [row for row in log if row["split"] == "validation"]
        refined = tmp_path / method / "out/record.json"
        policy, _, identity = load_checkpoint(refined, "float32")
        assert validation["margin"] == pytest.approx(margin(policy, start, tokenizer), rel=1e-3, abs=1e-6)
        # It rests on what it started from, not on what that was trained from.
        assert read_record(refined).model == str(first / "out/record.json")
        assert identity["weights"]["model"] == weights["trained"]
    # Another method in the same folder leaves nothing behind that would be loaded beside it.
    (tmp_path / "lora/out/record.json").unlink()
    run(*refine_command(tmp_path / "lora", first / "out/record.json", epochs=1, method="full"))
    assert not list((tmp_path / "lora/out").glob("adapter_*"))


def test_full_training_computes_in_the_students_dtype_and_starts_at_its_reference(base_checkpoint, tmp_path):
    command = refine_command(tmp_path, base_checkpoint, method="full", epochs=1, batch_size=8, micro_batch_size=8)
    settings = json.loads(command[3]) | {"dtype": "bfloat16"}
    run(*command[:3], json.dumps(settings), *command[4:])
    log = read_jsonl(tmp_path / "out/training.jsonl")
    assert next(row["loss"] for row in log if row["split"] == "train") == pytest.approx(math.log(2), abs=1e-5)
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(tmp_path / "out/model.safetensors").values())
