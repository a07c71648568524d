"""Packed rows against padded sequences, and frozen layers against PEFT's and transformers' own, on tiny models."""

import functools
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    FalconMambaConfig,
    Gemma2Config,
    GemmaConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)
from trl.trainer.utils import add_fused_lm_head

from selfrefine.training import frozen_kernels, packing
from selfrefine.training.frozen_kernels import FrozenHead, Product
from selfrefine.training.frozen_layers import speed_up
from selfrefine.training.packed_attention import PackedAttention, attend_by_piece
from selfrefine.training.packed_rows import SHORTEST_SHARED, Row
from selfrefine.training.packing import pack, trial

SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def words(seed: int, length: int) -> list[int]:
    return torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def prompt(number: int) -> list[int]:
    """One of several prompts that begin with the same 20 tokens."""
    return words(0, 20) + words(100 + number, 25)


def example(question: int, seed: int, length: int) -> tuple[list[int], list[int]]:
    return prompt(question), words(seed, length)


CASES = {
    "one sequence": [example(0, 1, 9)],
    "one pair": [example(0, 1, 9), example(0, 2, 14)],
    "pairs of one question": [example(0, seed, 5 + seed) for seed in range(1, 7)],
    "pairs of several questions": [example(q, 10 * q + side, 3 + 7 * side + q) for side in (1, 2) for q in range(4)],
    "the same sequence twice": [example(0, 1, 9), example(0, 1, 9), example(1, 3, 4)],
    "a sequence that another goes on from": [example(0, 1, 30), (prompt(0), words(1, 30) + words(2, 5))],
    "answers that begin alike": [(prompt(0), words(1, 20) + words(2, 5)), (prompt(0), words(1, 20) + words(3, 8))],
    "nothing in common": [(words(1, 18), words(2, 5)), (words(3, 40), words(4, 1)), (words(5, 1), words(6, 3))],
    "longer than a block": [example(0, 1, 150), example(1, 2, 140), example(1, 3, 2)],
}


def batch(examples, left: bool = False) -> dict:
    """Prompts and answers as TRL pads them."""
    sequences = [begun + answer for begun, answer in examples]
    width = max(map(len, sequences))
    ids, labels = torch.zeros(len(sequences), width, dtype=torch.long), torch.full((len(sequences), width), -100)
    mask = torch.zeros_like(ids)
    for i, ((begun, _), sequence) in enumerate(zip(examples, sequences, strict=True)):
        first = width - len(sequence) if left else 0
        ids[i, first : first + len(sequence)], mask[i, first : first + len(sequence)] = torch.tensor(sequence), 1
        labels[i, first + len(begun) : first + len(sequence)] = torch.tensor(sequence[len(begun) :])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def build(config=LlamaConfig, dtype=torch.float32, targets="all-linear", **changes):
    """A tiny model with TRL's head and an adapter that does something."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SMALL | changes), dtype=dtype)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    return model


def asked(model, inputs: dict):
    """(log-probabilities, gradients by name) of a loss in which every answer token counts differently."""
    found = model(**inputs, fused_lm_head=True).log_probs
    (found * torch.linspace(0.1, 1, found.numel()).view(found.shape)).sum().backward()
    return found.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_alike(ours, theirs, rel: float = 1e-4):
    (found, slopes), (wanted, expected) = ours, theirs
    assert torch.allclose(found, wanted, atol=rel * wanted.abs().max())
    assert slopes.keys() == expected.keys()
    for name, slope in slopes.items():
        assert torch.allclose(slope, expected[name], atol=rel * expected[name].abs().max()), name


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_row_holds_every_sequence_at_its_own_positions(case, share):
    sequences = [begun + answer for begun, answer in CASES[case]]
    row = Row(sequences, share)
    for sequence, places in zip(sequences, row.places, strict=True):
        assert [row.tokens[place] for place in places] == sequence
        assert [row.positions[place] for place in places] == list(range(len(sequence)))
    if not share:
        assert len(row.tokens) == sum(map(len, sequences))


@pytest.mark.parametrize(
    ("case", "tokens"),
    [
        ("one pair", 45 + 9 + 14),
        ("pairs of one question", 45 + sum(range(6, 12))),
        (
            "pairs of several questions",
            20 + 4 * 25 + sum(len(answer) for _, answer in CASES["pairs of several questions"]),
        ),
        ("the same sequence twice", 20 + 25 + 9 + 25 + 4),
        ("a sequence that another goes on from", 45 + 30 + 5),
        ("answers that begin alike", 45 + 20 + 5 + 8),
    ],
)
def test_a_prefix_that_sequences_share_is_there_once(case, tokens):
    assert len(Row([begun + answer for begun, answer in CASES[case]]).tokens) == tokens


def test_a_short_shared_prefix_is_not_worth_a_piece():
    sequences = [words(1, SHORTEST_SHARED - 1) + words(seed, 9) for seed in (2, 3)]
    assert len(Row(sequences).tokens) == sum(map(len, sequences))


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("case", CASES)
def test_packed_sequences_have_the_log_probabilities_and_gradients_of_padded_ones(case, left):
    padded, packed = build(), build()
    assert pack(packed.get_base_model(), 500) is None
    inputs = batch(CASES[case], left)
    assert_alike(asked(packed, inputs), asked(padded, inputs))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_packed_attention_is_that_of_each_sequence_by_itself(heads):
    """Block by block on a CPU, and piece by piece as on a GPU, with one, two and four key heads."""
    row = Row([begun + answer for begun, answer in CASES["pairs of several questions"]])
    torch.manual_seed(0)
    tokens = len(row.tokens)
    tensors = [torch.randn(1, n, tokens, 16, requires_grad=True) for n in (4, heads, heads)]
    outer = torch.randn(1, tokens, 4, 16)
    found = []
    for attend in (
        functools.partial(PackedAttention.apply, *tensors, row, 0.3),
        functools.partial(attend_by_piece, *tensors, row, 0.3),
        functools.partial(one_by_one, *tensors, row, 0.3),
    ):
        made = attend()
        found.append([made, *torch.autograd.grad((made * outer).sum(), tensors)])
    for ours in found[:2]:
        for one, other in zip(ours, found[2], strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def one_by_one(query, key, value, row, scaling):
    """Attention over a row, sequence by sequence."""
    made = torch.zeros(1, query.size(2), query.size(1), value.size(-1))
    for places in row.places:
        own = [tensor[:, :, places] for tensor in (query, key, value)]
        mixed = torch.nn.functional.scaled_dot_product_attention(*own, is_causal=True, scale=scaling, enable_gqa=True)
        made = made.index_copy(1, torch.tensor(places), mixed.transpose(1, 2))
    return made


def test_dropout_is_not_shared_between_sequences():
    model = build()
    dropping = get_peft_model(
        AutoModelForCausalLM.from_config(LlamaConfig(**SMALL)), LoraConfig(lora_dropout=0.5, task_type="CAUSAL_LM")
    )
    assert (
        packing._drops(dropping.train()) and not packing._drops(dropping.eval()) and not packing._drops(model.train())
    )


@pytest.mark.parametrize("rows", [1, 3, 7, 256])
def test_the_frozen_heads_log_probabilities_and_gradients(monkeypatch, rows):
    monkeypatch.setattr(frozen_kernels, "LOGIT_ROWS", rows)
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(7, 12, requires_grad=True), torch.randn(50, 12), torch.randint(50, (7,))
    outer = torch.randn(7)
    found = FrozenHead.apply(hidden, weight, targets)
    (slope,) = torch.autograd.grad((found * outer).sum(), hidden)
    wanted = (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (expected,) = torch.autograd.grad((wanted * outer).sum(), hidden)
    assert torch.allclose(found, wanted, atol=1e-5) and torch.allclose(slope, expected, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(FrozenHead.apply(hidden, weight, targets), found)


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        (MistralConfig, {"sliding_window": 40}, "its attention reaches 40 tokens back, and a sequence has 70"),
        (Gemma2Config, {}, "terms of its own .softcap"),
        (
            GptOssConfig,
            {"num_local_experts": 2, "num_experts_per_tok": 1, "router_aux_loss_coef": 0.0},
            "terms of its own .s_aux",
        ),
        (MixtralConfig, {"num_local_experts": 2}, "router learns from all tokens"),
        (LlamaConfig, {"attention_dropout": 0.1}, "drops scores at random"),
        (FalconMambaConfig, {}, "do not all take their attention from"),
    ],
)
def test_a_model_that_cannot_compute_from_packed_rows_computes_as_before(config, changes, reason):
    targets = ["q_proj"] if config is not FalconMambaConfig else ["in_proj"]
    model, plain = (build(config, targets=targets, **changes).eval() for _ in range(2))
    assert re.search(reason, pack(model.get_base_model(), 70))
    inputs = batch(CASES["one pair"])
    with torch.no_grad():
        ours, theirs = (asking(**inputs, fused_lm_head=True).log_probs for asking in (model, plain))
    assert torch.equal(ours, theirs)


def test_a_model_with_its_own_view_of_positions_computes_as_before():
    model = build()
    rotate = model.get_base_model().model.rotary_emb
    turn = rotate.forward
    rotate.forward = lambda x, position_ids: turn(x, torch.arange(x.size(1))[None])
    assert "depend on more than a sequence's tokens" in pack(model.get_base_model(), 70)
    assert model.config._attn_implementation == "sdpa" and model.training


def test_a_sliding_window_that_holds_every_sequence_changes_nothing():
    padded, packed = (build(MistralConfig, sliding_window=70) for _ in range(2))
    assert pack(packed.get_base_model(), 70) is None
    inputs = batch(CASES["pairs of one question"])
    assert_alike(asked(packed, inputs), asked(padded, inputs))


@pytest.mark.parametrize(
    ("config", "changes", "kinds"),
    [
        (LlamaConfig, {}, {"norm": 5, "attention": 2, "mlp": 2}),
        (LlamaConfig, {"mlp_bias": True, "attention_bias": True}, {"norm": 5, "attention": 2, "mlp": 2}),
        (Qwen2Config, {}, {"norm": 5, "attention": 2, "mlp": 2}),
        (MistralConfig, {"sliding_window": None}, {"norm": 5, "attention": 2, "mlp": 2}),
        (Qwen3Config, {}, {"norm": 5, "mlp": 2, "linear": 8}),
        (GemmaConfig, {}, {"attention": 2, "linear": 6}),
        (LlamaConfig, {"hidden_act": "gelu"}, {"norm": 5, "attention": 2, "linear": 6}),
        (OPTConfig, {"ffn_dim": 96, "dropout": 0.0}, {"linear": 12}),
    ],
    ids=["llama", "llama with biases", "qwen2", "mistral", "qwen3", "gemma", "gelu", "opt"],
)
def test_frozen_layers_compute_what_they_replace(config, changes, kinds):
    ours, theirs = (build(config, **changes) for _ in range(2))
    assert pack(ours.get_base_model(), 500) is None
    assert speed_up(ours.get_base_model(), trial(ours.get_base_model())) == kinds
    inputs = batch(CASES["pairs of several questions"])
    assert_alike(asked(ours, inputs), asked(theirs, inputs))
    for model in (ours, theirs):
        model.zero_grad()
        model.base_model.disable_adapter_layers()
    with torch.no_grad():
        found, wanted = (model(**inputs, fused_lm_head=True).log_probs for model in (ours, theirs))
    assert torch.allclose(found, wanted, atol=1e-4 * wanted.abs().max())


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["v_proj"], ["k_proj", "gate_proj", "o_proj"]], ids=str)
def test_frozen_layers_of_which_some_have_an_adapter(targets):
    ours, theirs = (build(targets=targets) for _ in range(2))
    pack(ours.get_base_model(), 500)
    assert speed_up(ours.get_base_model(), trial(ours.get_base_model()))["attention"] == 2
    inputs = batch(CASES["pairs of several questions"])
    assert_alike(asked(ours, inputs), asked(theirs, inputs))


def test_frozen_layers_follow_the_adapter_that_is_in_use():
    ours, theirs = build(), build()
    for model in (ours, theirs):
        torch.manual_seed(5)
        model.add_adapter("ref", LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", init_lora_weights=False))
    pack(ours.get_base_model(), 500)
    speed_up(ours.get_base_model(), trial(ours.get_base_model()))
    found = []
    for model in (ours, theirs):
        for adapter in ("default", "ref"):
            model.set_adapter(adapter)
            with torch.no_grad():
                found.append(model(**batch(CASES["one pair"]), fused_lm_head=True).log_probs)
    assert torch.allclose(found[0], found[2], atol=1e-3) and torch.allclose(found[1], found[3], atol=1e-3)
    assert not torch.allclose(found[0], found[1], atol=0.1)


def test_in_bfloat16_packed_rows_and_frozen_layers_are_as_near_to_float32_as_what_they_replace():
    exact, padded = build(), build(dtype=torch.bfloat16)
    packed = build(dtype=torch.bfloat16)
    with torch.no_grad():
        for model in (padded, packed):
            for weight, whole in zip(model.parameters(), exact.parameters(), strict=True):
                weight.copy_(whole)
        for weight, rounded in zip(exact.parameters(), padded.parameters(), strict=True):
            weight.copy_(rounded)
    pack(packed.get_base_model(), 500)
    assert speed_up(packed.get_base_model(), trial(packed.get_base_model())) == {"norm": 5, "attention": 2, "mlp": 2}
    inputs = batch([example(q, 10 * q + side, 20) for side in range(8) for q in range(4)])
    (wanted, slopes), *found = (asked(model, inputs) for model in (exact, padded, packed))
    theirs, ours = (error(made, wanted) for made, _ in found)
    assert ours < 1.1 * theirs
    theirs, ours = (sum(error(by[name], slopes[name]) for name in slopes) / len(slopes) for _, by in found)
    assert ours < 1.2 * theirs


def error(found, wanted) -> float:
    """The root of the mean squared difference, of the root of the mean square."""
    return ((found - wanted).pow(2).mean() / wanted.pow(2).mean()).sqrt().item()


def test_an_adapters_small_steps_are_seen_in_bfloat16():
    """Steps that bfloat16 does not resolve move what comes out as they do in float32, on the whole."""
    torch.manual_seed(0)
    inputs, weight = torch.randn(4096, 32).bfloat16(), torch.zeros(48, 32).bfloat16()
    adapter = [(1 + torch.rand(*shape)).bfloat16().float() for shape in ((1, 32), (48, 1))]
    for moved in (0, 1):
        stepped = list(adapter)
        stepped[moved] = adapter[moved] + 1e-3
        assert torch.equal(stepped[moved].bfloat16(), adapter[moved].bfloat16())
        before, after = (
            Product.apply(inputs, weight, None, [(0, 48, 1.0)], *one).float() for one in (adapter, stepped)
        )
        wanted = inputs.float() @ (stepped[0].T @ stepped[1].T - adapter[0].T @ adapter[1].T)
        assert ((after - before) * wanted).sum() / wanted.pow(2).sum() == pytest.approx(1, abs=0.1)
