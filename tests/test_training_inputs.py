"""What users bring to training: diverging settings, odd models and templates, answers that must be learned as written."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trl
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from conftest import REPOSITORY, build_tiny_model, record_model, snakemake
from conftest import run_training as run
from selfrefine.errors import UserError
from selfrefine.models.chat_templates import render
from selfrefine.models.checkpoints import load_checkpoint, load_model, load_tokenizer
from selfrefine.models.suitability import check_model
from selfrefine.models.weight_files import check_files
from selfrefine.schema.model_use import ModelUse
from selfrefine.schema.optimisation import InstructTraining, Lora
from selfrefine.schema.stages import InstructSettings, RefineSettings
from selfrefine.store.files import read_json, read_jsonl, write_json, write_jsonl
from selfrefine.training.encoding import encode_completion, encode_prompt
from selfrefine.training.examples import encode_demonstrations, encode_pairs
from selfrefine.training.objectives.pairwise import odds_ratio_loss
from selfrefine.training.saving import save_trained
from selfrefine.training.trainable_weights import lora_config
from test_models import fetch_model
from test_training import ITEMS, instruct_command, instruct_settings, pairs, refine_command, refine_settings

CHAT = [{"role": "user", "content": "How many?"}]

# --- nothing that is not finite ---------------------------------------------------------------------------------------


def assert_nothing_is_kept(folder: Path) -> None:
    assert not (folder / "record.json").exists()
    for path in folder.rglob("*.safetensors"):
        assert all(torch.isfinite(weight).all() for weight in load_file(path).values()), path


@pytest.mark.parametrize("stage", ["instruct", "refine"])
def test_a_training_that_diverges_stops_at_its_update(stage, base_checkpoint, tmp_path):
    command = instruct_command if stage == "instruct" else refine_command
    outcome = run(*command(tmp_path, base_checkpoint, learning_rate=2e5, epochs=8), check=False)
    assert outcome.returncode == 1
    last = outcome.stderr.strip().splitlines()[-1]
    assert re.search(r"error: update \d+: the (loss|gradient norm|validation loss|weights \S+) .*(nan|inf)", last), last
    assert "learning_rate" in last and "Traceback" not in outcome.stderr
    assert_nothing_is_kept(tmp_path / "out")


def poisoned(source: Path, folder: Path, value: float) -> Path:
    """A model's folder with one weight that is not finite."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return record_model(folder)


@pytest.mark.parametrize("stage", ["instruct", "refine"])
def test_a_model_with_one_weight_that_is_no_number_is_not_trained(stage, tiny_model, tmp_path):
    record = poisoned(tiny_model, tmp_path / "model", float("nan"))
    command = instruct_command if stage == "instruct" else refine_command
    outcome = run(*command(tmp_path, record), check=False)
    assert outcome.returncode == 1 and "Traceback" not in outcome.stderr
    assert re.search(r"error: .*(nan|inf)", outcome.stderr)
    assert_nothing_is_kept(tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_model_whose_logits_are_not_finite_generates_nothing(tiny_model, tmp_path, value, temperature):
    from selfrefine.engines.interface import Request
    from selfrefine.engines.transformers import TransformersEngine
    from selfrefine.schema.generation import Generation

    poisoned(tiny_model, tmp_path / "model", value)
    engine = TransformersEngine(
        load_model(tmp_path / "model", "float32"), load_tokenizer(tmp_path / "model"), {}, batch_size=2
    )
    (batch,) = engine.batches([Request("a", CHAT, Generation(max_tokens=4, temperature=temperature))])
    with pytest.raises(UserError, match=r"logits are not finite \((nan|inf|-inf)\)"):
        engine.generate(batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_model_with_a_weight_that_is_not_finite_is_refused_when_it_is_fetched(tiny_model, tmp_path, value):
    poisoned(tiny_model, tmp_path / "theirs", value)
    outcome = fetch_model(f"file:{tmp_path / 'theirs'}", tmp_path / "ours")
    assert outcome.returncode == 1 and "Traceback" not in outcome.stderr
    assert "model.layers.1.mlp.down_proj.weight are not finite" in outcome.stderr
    assert list((tmp_path / "ours").iterdir()) == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_adapter_that_is_not_finite_is_not_saved(tiny_model, tmp_path, dtype):
    model = get_peft_model(load_model(tiny_model, "float32", training=True), lora_config(Lora()))
    next(weight for name, weight in model.named_parameters() if "lora_B" in name).data[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"the weights .*lora_B.* hold nan"):
        save_trained(model, load_tokenizer(tiny_model), tmp_path, dtype)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_overflow_the_students_dtype_are_not_saved(tiny_model, tmp_path):
    model = load_model(tiny_model, "float32", training=True)
    model.model.norm.weight.data[0] = 1e6
    with pytest.raises(UserError, match="model.norm.weight hold inf"):
        save_trained(model, load_tokenizer(tiny_model), tmp_path, "float16")


def test_the_odds_of_a_certain_answer_are_finite():
    means = torch.tensor([0.0, -1e-9, -0.5], requires_grad=True)
    for chosen, rejected in ((means, means.flip(0)), (means, means)):
        loss = odds_ratio_loss(chosen, rejected, 0.1)
        (slope,) = torch.autograd.grad(loss, means)
        assert torch.isfinite(loss) and torch.isfinite(slope).all()


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), 0, -1])
def test_a_learning_rate_that_is_no_positive_number_is_refused(rate):
    with pytest.raises(ValidationError, match="learning_rate"):
        InstructTraining(learning_rate=rate)


# --- what is evaluated is what was trained ----------------------------------------------------------------------------


def adapted(model: Path, targets, seed: int = 0):
    """A model with an adapter that does something."""
    made = get_peft_model(load_model(model, "float32", training=True), lora_config(Lora(r=4, targets=targets)))
    torch.manual_seed(seed)
    for name, weight in made.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            weight.data.normal_(0, 0.1)
    return made


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["embed_tokens"], ["model.embed_tokens", "o_proj"]])
def test_an_adapter_on_tied_embeddings_is_refused(tiny_model, base_checkpoint, tmp_path, targets):
    with pytest.raises(UserError, match=r"lora\.targets: .* shares its weights with .*tied embeddings"):
        save_trained(adapted(tiny_model, targets), load_tokenizer(tiny_model), tmp_path, "float32")
    assert list(tmp_path.iterdir()) == []
    # And before the first update.
    outcome = run(*instruct_command(tmp_path, base_checkpoint, lora={"targets": targets}), check=False)
    assert outcome.returncode == 1 and "lora.targets" in outcome.stderr and "'loss'" not in outcome.stdout


@pytest.fixture(scope="module")
def untied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("untied")
    build_tiny_model(folder, num_hidden_layers=2)
    record_model(folder)
    return folder


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"], ["down_proj"]], ids=str)
def test_a_saved_adapter_is_evaluated_as_it_was_trained(untied, tmp_path, targets):
    model, tokenizer = adapted(untied, targets), load_tokenizer(untied)
    ids = torch.tensor([encode_prompt(tokenizer, CHAT)])
    with torch.no_grad():
        trained = model.eval()(ids).logits[0].log_softmax(-1)
    save_trained(model, tokenizer, tmp_path / "out", "float32")
    record_model(tmp_path / "out", stage="instruct", model=str(untied / "record.json"))
    with torch.no_grad():
        evaluated = load_checkpoint(tmp_path / "out/record.json", "float32")[0](ids).logits[0].log_softmax(-1)
    assert torch.allclose(trained, evaluated, atol=1e-3)


def test_an_adapter_that_merges_into_another_model_is_not_saved(tiny_model, tmp_path, monkeypatch):
    """As with a kind of sharing that no check knows of."""
    model = adapted(tiny_model, ["q_proj"])
    merge = model.base_model.merge_adapter

    def merging():
        merge()
        model.get_base_model().model.norm.weight.data.mul_(1.5)

    monkeypatch.setattr(model.base_model, "merge_adapter", merging)
    with pytest.raises(UserError, match=r"is another model: log-probabilities differ by .*lora\.targets"):
        save_trained(model, load_tokenizer(tiny_model), tmp_path, "float32")
    assert list(tmp_path.iterdir()) == []


# --- lora.targets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["q_proj", ["q_proj"]], ids=str)
def test_one_target_is_a_list_of_one(targets):
    assert Lora(targets=targets).targets == ["q_proj"]


@pytest.mark.parametrize(
    "targets", ["q_proj,v_proj", "q_proj, v_proj", "", " ", [], [""], ["q_proj,v_proj"], ["q_proj"] * 2, ["all-linear"]]
)
def test_targets_that_name_no_module_are_refused(targets):
    with pytest.raises(ValidationError, match="targets"):
        Lora(targets=targets)


KEY = "students.mine.instruct.lora.targets"


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_prj"], f"{KEY}: 'q_prj' is not there in here; it has .*q_proj"),
        (["q_proj", "experts"], f"{KEY}: 'experts' is not there"),
        (["norm"], f"{KEY}: 'norm' is no matrix"),
        (["self_attn"], f"{KEY}: 'self_attn' is no matrix"),
        (["lm_head"], f"{KEY}: 'lm_head' is the head of here"),
        (["embed_tokens"], f"{KEY}: 'embed_tokens' in here shares its weights with lm_head"),
        (["q_proj", "layers.0.self_attn.o_proj"], None),
    ],
    ids=str,
)
def test_targets_are_looked_for_in_the_model_when_it_is_fetched(tiny_model, targets, said):
    uses = [ModelUse(key="students.mine", targets={KEY: targets})]
    if said is None:
        check_model(tiny_model, "here", uses)
        return
    with pytest.raises(UserError, match=said):
        check_model(tiny_model, "here", uses)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_prj"], "instruct.lora.targets: 'q_prj' is not in"),
        (["lm_head"], "is the model's head"),
        (["embed_tokens"], "ties its head to its embeddings"),
    ],
    ids=str,
)
def test_targets_of_a_model_on_this_machine_are_refused_in_the_dry_run(fresh, targets, said):
    folder, path, config = fresh
    config["instruct"]["lora"]["targets"] = targets
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    outcome = snakemake(folder, "-n", check=False)
    assert outcome.returncode and said in outcome.stderr + outcome.stdout
    assert not (folder / "results/store/teach").exists()


# --- files of a model -------------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(tiny_model, tmp_path) -> Path:
    """A copy of the tiny model to spoil."""
    shutil.copytree(tiny_model, tmp_path / "theirs")
    (tmp_path / "theirs/record.json").unlink()
    return tmp_path / "theirs"


LFS = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 269060552\n"
)


def add_token(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(folder)


def edit(name: str, **changes):
    return lambda folder: write_json(folder / name, read_json(folder / name) | changes)


def shorten(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])


SPOILT = {
    "pointer of weights": (
        lambda f: (f / "model.safetensors").write_text(LFS),
        "model.safetensors is a pointer.*git lfs",
    ),
    "pointer of a tokenizer": (
        lambda f: (f / "tokenizer.json").write_text(LFS),
        "tokenizer.json is a pointer.*git lfs",
    ),
    "cut off": (lambda f: shorten(f, 0.5), "model.safetensors is cut off or damaged"),
    "cut off in the header": (lambda f: shorten(f, 0.001), "model.safetensors is cut off or damaged"),
    "empty": (lambda f: shorten(f, 0), "model.safetensors is cut off or damaged"),
    "no tokenizer": (lambda f: [path.unlink() for path in f.glob("tokenizer*")], "has no tokenizer"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), "no chat template.*students.NAME.chat_template"),
    "a token too many": (add_token, "tokens without an embedding .'<think>'"),
    "unknown kind": (edit("config.json", model_type="mamba9"), "architecture is not supported"),
    "own code": (
        edit("config.json", model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}),
        "architecture is not supported",
    ),
    "a part missing": (
        lambda f: write_json(f / "model.safetensors.index.json", {"weight_map": {"a": "model-2.safetensors"}}),
        "model-2.safetensors missing",
    ),
    "no stop token": (edit("tokenizer_config.json", eos_token=None), "has no stop token"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_model_that_no_job_could_use_is_refused_when_it_is_fetched(theirs, tmp_path, kind):
    spoil, said = SPOILT[kind]
    spoil(theirs)
    with pytest.raises(UserError, match=f"^file:there: .*{said}") as refused:
        check_files(theirs, "file:there")
        check_model(theirs, "file:there", [])
    assert "\n" not in str(refused.value)
    assert "damaged" not in str(refused.value) or "cut off" in kind or kind == "empty"


def test_a_refused_model_leaves_nothing_behind(theirs, tmp_path):
    shorten(theirs, 0.5)
    outcome = fetch_model(f"file:{theirs}", tmp_path / "ours")
    assert outcome.returncode == 1 and "Traceback" not in outcome.stderr and "cut off" in outcome.stderr
    assert list((tmp_path / "ours").iterdir()) == []


def test_a_gguf_of_an_architecture_that_is_not_supported_is_not_called_damaged(tmp_path):
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba3-moe")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    outcome = fetch_model(f"file:{tmp_path / 'model.gguf'}", tmp_path / "ours", suffix=".gguf")
    assert outcome.returncode == 1 and "Traceback" not in outcome.stderr
    assert "of this architecture" in outcome.stderr and "damaged" not in outcome.stderr


def test_a_read_only_folder_is_fetched_by_an_ordinary_user(theirs, tmp_path):
    (theirs / "deep").mkdir()
    (theirs / "deep/notes.txt").write_text("theirs")
    for path in [*theirs.rglob("*"), theirs]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "scripts/fetch_model.py", "--settings", json.dumps({"suffix": "", "sha256": None})]
    command += ["--source", json.dumps({"source": f"file:{theirs}"}), "--record", str(tmp_path / "ours/record.json")]
    if os.geteuid() == 0 and shutil.which("setpriv"):
        without = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}", *command]
    try:
        outcome = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    finally:
        for path in [theirs, *theirs.rglob("*")]:
            path.chmod(0o755)
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / "ours/model.safetensors").stat().st_mode & stat.S_IWUSR
    assert (tmp_path / "ours/deep/notes.txt").exists()


# --- answers are learned as they were written -------------------------------------------------------------------------


def template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def tokenizer_with(folder, chat_template, eos, bos=None, specials=(), plain=(), pad=None, chosen=None):
    """A tiny byte-level tokenizer with a chat template, as the pipeline loads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = list(dict.fromkeys([*(token for token in (eos, bos, pad) if token), *specials]))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["The answer is 5. Let us add."] * 9, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, bos_token=bos, pad_token=pad)
    fast.add_tokens(list(plain))
    if chat_template is not None:
        fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return load_tokenizer(folder, chosen)


R1 = ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", ["<｜User｜>", "<｜Assistant｜>"], ["<think>", "</think>"])
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
STRIPPING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# By kind: the tokenizer, and what closes a finished answer.
KINDS = {
    "gemma": (("gemma", "<eos>", "<bos>", ["<start_of_turn>", "<end_of_turn>"], (), "<pad>"), "<end_of_turn><eos>"),
    "phi3": (
        ("phi3", "<|endoftext|>", "<s>", ["<|user|>", "<|assistant|>", "<|end|>", "<|system|>"]),
        "<|end|>\n<|endoftext|>",
    ),
    "llama3": (
        ("llama3", "<|eot_id|>", "<|begin_of_text|>", ["<|start_header_id|>", "<|end_header_id|>"]),
        "<|eot_id|>",
    ),
    "qwen2.5": (("qwen2_5", "<|im_end|>", None, ["<|im_start|>"], (), "<|endoftext|>"), "<|im_end|>"),
    "qwen2.5 base": (("qwen2_5", "<|endoftext|>", None, ["<|im_start|>", "<|im_end|>"]), "<|im_end|><|endoftext|>"),
    "qwen3": (("qwen3", "<|im_end|>", None, ["<|im_start|>"], ["<think>", "</think>"], "<|endoftext|>"), "<|im_end|>"),
    "r1": (("deepseek_r1_distill", *R1), R1[0]),
    "r1 before February 2025": (("r1_old", *R1), R1[0]),
    "trims": (("trims", "<|im_end|>", None, ["<|im_start|>"]), "<|im_end|>"),
    "plain": ((None, "<|endoftext|>"), "<|endoftext|>"),
    "plain with a begin token": ((None, "</s>", "<s>"), "</s>"),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    made = {}
    for kind, ((name, *more), _) in KINDS.items():
        text = {"r1_old": "deepseek_r1_distill", "trims": None, None: None}.get(name, name)
        text = STRIPPING if name == "trims" else template(text) if text else None
        if name == "r1_old":
            text = text.replace("<｜Assistant｜><think>\\n", "<｜Assistant｜>")
        chosen = "plain" if name is None else None
        made[kind] = tokenizer_with(tmp_path_factory.mktemp("tokenizer"), text, *more, chosen=chosen)
    return made


TEXTS = [
    "The answer is 5.",
    "<think>\nTwo and three make five.\n</think>\n\nThe answer is 5.",
    "</think>The answer is 5.",
    "  spaces around \n",
    "Grüße, 你好, 🙂",
    "It spells <|im_end|>, <end_of_turn>, </s> and <｜end▁of▁sentence｜>.",
    "five.",
]


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "cut"])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_learned_as_it_was_written(tokenizers, kind, text, finished):
    tokenizer, end = tokenizers[kind], KINDS[kind][1]
    ids = encode_completion(tokenizer, CHAT, text, finished)
    # What this template's prompt opens is not opened again.
    written = text.removeprefix("<think>\n") if kind == "r1" else text
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == written + (end if finished else "")
    # The stop token is the last, and the only one that generation would stop at.
    assert ids.count(tokenizer.eos_token_id) == int(finished) == int(ids[-1] == tokenizer.eos_token_id)


@pytest.mark.parametrize("kind", KINDS)
def test_any_answer_is_learned_as_it_was_written(tokenizers, kind):
    tokenizer, end = tokenizers[kind], KINDS[kind][1]

    @settings(deadline=None, max_examples=40)
    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.booleans())
    def check(text, finished):
        ids = encode_completion(tokenizer, CHAT, text, finished)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text + (end if finished else "")

    check()


def test_different_chains_of_thought_are_different_answers(tokenizers):
    for tokenizer in tokenizers.values():
        one, other = (
            encode_completion(tokenizer, CHAT, f"<think>\n{chain}\n</think>\n\nThe answer is 5.")
            for chain in ("Two and three.", "Three and two.")
        )
        assert one != other


def test_llama2s_spaces_around_an_answer_are_its_templates(tmp_path):
    tokenizer = tokenizer_with(tmp_path, LLAMA2, "</s>", "<s>")
    whole = encode_prompt(tokenizer, CHAT) + encode_completion(tokenizer, CHAT, "The answer is 5.")
    assert tokenizer.decode(whole) == "<s>[INST] How many? [/INST] The answer is 5. </s>"
    assert tokenizer.decode(encode_completion(tokenizer, CHAT, "The ans", finished=False)) == " The ans"


def test_there_is_one_begin_token(tokenizers):
    tokenizer = tokenizers["llama3"]
    assert encode_prompt(tokenizer, CHAT).count(tokenizer.bos_token_id) == 1


def test_a_template_that_refuses_a_system_message_says_so_in_one_line(tokenizers):
    tokenizer = tokenizers["gemma"]
    with pytest.raises(UserError, match="refuses a chat of system and user .*`system: null`"):
        encode_prompt(tokenizer, [{"role": "system", "content": ""}, *CHAT])
    assert tokenizer.decode(encode_prompt(tokenizer, CHAT)).startswith("<bos><start_of_turn>user")


REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def test_a_template_that_refuses_a_students_system_message_is_refused_when_fetched(theirs):
    path = theirs / "chat_template.jinja"
    path.write_text(REFUSING + path.read_text())
    check_model(theirs, "here", [ModelUse(key="students.mine")])
    with pytest.raises(UserError, match=r"^students\.mine\.system: here: .*System role not supported"):
        check_model(theirs, "here", [ModelUse(key="students.mine", system="")])


@pytest.mark.parametrize("broken", ["{% for message in messages %}", "{{ messages[0].content | nothing }}"])
def test_a_template_that_is_broken_is_refused_when_fetched(theirs, broken):
    with pytest.raises(UserError, match=r"^students\.mine: here: the model's chat template refuses"):
        check_model(theirs, "here", [ModelUse(key="students.mine", chat_template=broken)])


def test_a_template_that_states_the_date_says_the_same_every_day(tokenizers):
    import copy

    dated = copy.copy(tokenizers["qwen2.5"])
    dated.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. {{ messages[0]['content'] }}"
    assert render(dated, CHAT) == "Today is 26 Jul 2024. How many?"


def test_a_tokenizer_without_a_stop_token_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=rf"^{re.escape(str(tmp_path))}: the tokenizer has no stop token"):
        tokenizer_with(tmp_path, STRIPPING, None)


def test_a_base_model_without_a_chat_template_is_refused_with_the_key(tmp_path):
    with pytest.raises(UserError, match=r"no chat template; set `students\.NAME\.chat_template`"):
        tokenizer_with(tmp_path, None, "<|endoftext|>")


# --- empty answers ----------------------------------------------------------------------------------------------------

EMPTY = ["", " ", "\n\n", "\t"]


@pytest.mark.parametrize("text", EMPTY, ids=repr)
def test_empty_answers_never_reach_a_loss(tiny_model, text):
    tokenizer, items = load_tokenizer(tiny_model), {item["id"]: item for item in ITEMS}
    rows = [{"id": f"{i['id']}-cot-0", "item": i["id"], "text": "The answer is A."} for i in ITEMS]
    rows[3]["text"] = text
    examples, counts = encode_demonstrations(
        rows, items, InstructSettings.model_validate(instruct_settings()), tokenizer
    )
    assert (len(examples.train), counts["empty"]) == (11, 1)
    for side in ("chosen", "rejected"):
        made = pairs()
        made[5][side] = made[5][side] | {"text": text}
        examples, counts = encode_pairs(made, items, RefineSettings.model_validate(refine_settings()), tokenizer)
        assert (counts["train"], counts["empty"]) == (7, 1)


@pytest.mark.parametrize(
    "objective",
    [
        {"loss": "sigmoid"},
        {"loss": "sigmoid_norm", "reference": "none", "margin": 0.5},
        {"loss": "odds_ratio", "reference": "none", "nll": 1.0},
        {"loss": "kto"},
        {"loss": "sft"},
    ],
    ids=str,
)
def test_a_cut_empty_answer_is_left_out_of_every_loss(base_checkpoint, tmp_path, objective):
    command = refine_command(tmp_path, base_checkpoint, objective=objective, epochs=1)
    rows = pairs()
    rows[7]["rejected"] |= {"text": "", "finished": False}
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    run(*command)
    figures = read_json(tmp_path / "out/record.json")["figures"]
    assert figures["pairs"]["empty"] == 1
    assert all(abs(row["loss"]) < 100 for row in read_jsonl(tmp_path / "out/training.jsonl"))


# --- models without a chat template -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["plain", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"], ids=str)
def test_a_base_model_goes_through_every_arm_with_a_template_of_the_configuration(fresh, chosen):
    """One template in training, sampling and evaluation, whatever the model's folder holds."""
    folder, path, config = fresh
    model = folder / "base"
    shutil.copytree(Path(config["models"]["tiny"]["source"].removeprefix("file:")), model)
    for name in ("record.json", "chat_template.jinja"):
        (model / name).unlink()
    config["models"]["tiny"]["source"] = f"file:{model}"
    config["study"]["arms"] = ["baseline", "instruct", "refine", "refine-only"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    refused = snakemake(folder, check=False)
    logs = "".join(log.read_text() for log in folder.glob("logs/fetch_model/**/*.log"))
    assert refused.returncode and "set `students.tiny.chat_template`" in logs
    assert not list(folder.glob("results/store/teach/*/*/*/record.json"))
    config["students"]["tiny"]["chat_template"] = chosen
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(folder)
    made = {path.relative_to(folder / "results/store").parts[0] for path in folder.glob("results/store/**/record.json")}
    assert {"instruct", "sample", "pair", "refine", "evaluate"} <= made
