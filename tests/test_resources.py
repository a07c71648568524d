"""What jobs ask a cluster for: sums done by hand, and the worked examples of docs/cluster.md."""

import pytest
import yaml
from snakemake.utils import update_config

from conftest import REPOSITORY
from selfrefine.errors import UserError
from selfrefine.schema.assumptions import Assumptions
from selfrefine.study import resources
from selfrefine.study.design import Study
from selfrefine.study.planning import Needs, Planner
from selfrefine.study.resources import Memory, Size

ASSUMPTIONS = Assumptions.read(yaml.safe_load((REPOSITORY / "config/assumptions.yaml").read_text()))
# 12 x 32 layers x (32 heads of 128)^2.
SIZE = Size(parameters=6.442450944, active=6.442450944, vocabulary=32_000)
CELL = {"task": "gsm8k", "share": "100", "seed": "0"}
MODELS = {"7B": "llama-2-7b", "13B": "llama-2-13b", "70B": "llama-2-70b"}


def planner(cluster: dict | None, **changes) -> Planner:
    """The paper's study on a cluster, its largest model among the students, engine transformers unless changed."""
    config: dict = {}
    for name in ("benchmarks", "recipes", "paper"):
        update_config(config, yaml.safe_load((REPOSITORY / f"config/{name}.yaml").read_text()))
    update_config(
        config, {"students": {"llama-2-70b": {"model": "llama-2-70b", "family": "llama-2", "quantisation": "nf4"}}}
    )
    with_weights = {"llama-2-70b": {"engine": "transformers"}, "mixtral-8x7b": {"engine": "transformers"}}
    update_config(config, {"engine": "transformers", "teachers": with_weights})
    update_config(config, {**changes, "cluster": cluster})
    return Planner(Study.read(config), ASSUMPTIONS)


def jobs(model: str) -> dict[str, dict]:
    """One job of each stage, on GSM8K."""
    start = f"{model}/instruct/gpt-3.5/gsm8k/100/0"
    return {
        "sample": {"start": start, **CELL},
        "evaluate": {"checkpoint": start, "task": "gsm8k"},
        "instruct": {"student": model, "teacher": "gpt-3.5", **CELL},
        "refine": {"start": start, "recipe": "cot", **CELL},
    }


def test_a_size_has_the_shape_of_a_dense_transformer():
    assert SIZE.layers == pytest.approx(32)
    assert SIZE.width == pytest.approx(4096)
    assert SIZE.lora(8) == pytest.approx(32 * 4096 * 19 * 8 / 1e9)


def test_writing_holds_weights_keys_and_values_and_one_layer():
    held = resources.generating(SIZE, 2, rows=32, prompt=512, written=256)
    # A key and a value of 4096 numbers in 32 layers; a layer reads 16,384 tokens at 2 x 2 + 3 x 8/3 x 2 bytes.
    assert held.divided == pytest.approx(6.442450944 * 2 + 32 * 768 * 2 * 32 * 4096 * 2 / 1e9)
    assert held.each == pytest.approx(32 * 512 * 20 * 4096 / 1e9)
    fewer = resources.generating(SIZE._replace(kv_share=0.25), 2, rows=32, prompt=512, written=256)
    assert held.divided - fewer.divided == pytest.approx(0.75 * (held.divided - 6.442450944 * 2))


def test_training_holds_weights_moments_activations_and_logits():
    given = {"number_bytes": 2, "weight_bytes": 0.5, "trained": 0.02, "tokens": 8192}
    whole, light = (resources.training(SIZE, **given, checkpointing=checkpointing) for checkpointing in (False, True))
    assert whole.divided == light.divided == pytest.approx(6.442450944 * 0.5 + 0.02 * 16)
    logits = 10 * 32_000
    assert whole.each == pytest.approx(8192 * (32 * 34 * 4096 + logits) / 1e9)
    assert light.each == pytest.approx(8192 * (32 * 2 * 4096 + 34 * 4096 + logits) / 1e9)


def test_an_adapter_keeps_the_inputs_of_its_matrices_in_float32():
    given = {"number_bytes": 2, "weight_bytes": 2, "trained": 0.02, "tokens": 8192}
    for checkpointing, layers in ((False, 32), (True, 1)):
        plain, adapted = (
            resources.training(SIZE, **given, checkpointing=checkpointing, lora=lora) for lora in (False, True)
        )
        # q, k, v, o, gate and up as wide as the layer, down 8/3 times, four bytes each.
        assert adapted.each - plain.each == pytest.approx(8192 * layers * 4096 * (6 + 8 / 3) * 4 / 1e9)
        assert adapted.divided == plain.divided


def test_gpus_divide_what_can_be_divided():
    assert [resources.gpus(Memory(10, 4), gpu, 1, 8) for gpu in (14, 13.9, 9, 5.3)] == [1, 2, 2, 8]
    with pytest.raises(
        UserError, match=r"it takes 10.0 GB, and 4.0 GB on each GPU: 10 GPUs of 5 GB, and there are 8 \(cluster"
    ):
        resources.gpus(Memory(10, 4), 5, 1, 8)
    assert [resources.gpus(Memory(10, 4), gpu, 1, 8, evenly=True) for gpu in (14, 9, 8, 7, 5.3)] == [1, 2, 4, 4, 8]
    assert resources.gpus(Memory(10, 4).whole, 14.1, 1, 8) == 1
    with pytest.raises(UserError, match=r"each GPU must hold 14.0"):
        resources.gpus(Memory(10, 4).whole, 13, 1, 8)
    with pytest.raises(UserError, match=r"each GPU must hold 4.0 GB, and one of 4 GB has 3.8 free"):
        resources.gpus(Memory(10, 4), 4, 0.95, 8)


def test_time_is_a_multiple_in_tens_of_minutes_up_to_the_longest():
    assert [resources.minutes(1.01, 3, attempt, 24) for attempt in (1, 2)] == [190, 370]
    assert [resources.minutes(hours, 3, 1, 24) for hours in (0.001, 7.9, 8.1)] == [10, 1430, 1440]


def test_a_job_asks_for_more_at_each_attempt_and_for_as_many_gpus():
    estimated = planner({"gpu_memory": 40, "gpus_per_node": 4})
    first, second = (estimated.needs("sample", attempt, **jobs("llama-2-13b")["sample"]) for attempt in (1, 2))
    assert first.gpu == second.gpu == 2
    assert second.mem_mb == pytest.approx(2 * first.mem_mb, abs=100)
    assert second.runtime == pytest.approx(2 * first.runtime, abs=10)


def test_without_gpus_a_job_holds_everything_in_the_host():
    needs = planner({"longest_hours": 10}).needs("evaluate", 1, **jobs("llama-2-7b")["evaluate"])
    # Processors that multiply bfloat16 slowly compute in float32.
    assert needs == Needs(0, pytest.approx(1000 * (4 + 2 * (26.8 + 1.4)), abs=200), 600)
    narrow = planner({"longest_hours": 10}, compute="bfloat16").needs("evaluate", 1, **jobs("llama-2-7b")["evaluate"])
    assert narrow == Needs(0, pytest.approx(1000 * (4 + 26.8 + 1.4), abs=100), 600)
    assert planner(None).needs("evaluate", 1, **jobs("llama-2-7b")["evaluate"]) == Needs(0, 4000, None)


def test_gpus_without_bfloat16_hold_twice_as_much():
    job = jobs("llama-2-7b")["evaluate"]
    gpus = {"gpu_memory": 80, "gpus_per_node": 8}
    narrow, wide = (planner(gpus | {"gpu_bfloat16": able}).memory("evaluate", **job).total for able in (True, False))
    assert wide == pytest.approx(2 * narrow)


def test_training_takes_the_gpus_that_share_out_its_examples_and_fits_on_each():
    job = jobs("llama-2-7b")["instruct"]
    one, two = (planner({"gpu_memory": 80, "gpus_per_node": 4, "gpus_to_train": n}) for n in (1, 2))
    assert (one.needs("instruct", 1, **job).gpu, two.needs("instruct", 1, **job).gpu) == (1, 2)
    plain = planner({"gpu_memory": 80, "gpus_per_node": 4}, students={"llama-2-7b": {"quantisation": "none"}})
    held = [estimated.memory("instruct", **job).total for estimated in (plain, one)]
    assert held[0] - held[1] == pytest.approx(6.74 * (2 - 0.515875))
    with pytest.raises(UserError, match="cluster: gpus_to_train 3 is more than gpus_per_node 2"):
        planner({"gpu_memory": 80, "gpus_per_node": 2, "gpus_to_train": 3})
    with pytest.raises(UserError, match=r"instruct.micro_batch_size: 8 examples on each of 3 GPUs"):
        planner({"gpu_memory": 80, "gpus_per_node": 4, "gpus_to_train": 3})


def test_training_in_full_is_shared_out_among_its_gpus():
    job, full = jobs("llama-2-7b")["instruct"], {"quantisation": "none", "instruct": {"method": "full"}}
    alone = planner(None, students={"llama-2-7b": full})
    assert alone.memory("instruct", **job).each > 6.74 * 16
    with pytest.raises(UserError, match="each GPU must hold .* more GPUs"):
        alone.gpus("instruct", **job)
    node = {"gpu_memory": 80, "gpus_per_node": 8}
    two = planner(node | {"gpus_to_train": 2}, students={"llama-2-7b": full})
    assert two.memory("instruct", **job).divided == pytest.approx(6.74 * 16)
    # Besides, the host gathers weights and optimizer state for a checkpoint.
    assert two.needs("instruct", 1, **job)[:2] == (2, pytest.approx(1000 * (4 + 6.74 * 12), abs=100))
    refused = r"students.llama-2-13b: rule instruct does not fit on a node: it takes 208.* 2 \(cluster.gpus_to_train\)"
    with pytest.raises(UserError, match=refused):
        planner(node | {"gpus_to_train": 2}, students={"llama-2-13b": full})
    # Four GPUs of 40 GB would hold their shares; until training begins, each holds 52.1 GB of weights.
    with pytest.raises(UserError, match=r"each GPU must hold 52.1 GB"):
        planner(node | {"gpu_memory": 40, "gpus_to_train": 8}, students={"llama-2-13b": full})


def test_vllm_divides_attention_heads_evenly():
    job = jobs("llama-2-70b")["evaluate"]
    asked = [
        planner({"gpu_memory": 80, "gpus_per_node": 8}, engine=e).needs("evaluate", 1, **job).gpu
        for e in ("transformers", "vllm")
    ]
    assert asked == [2, 2]
    narrow = {"gpu_memory": 40, "gpus_per_node": 8}
    assert [planner(narrow, engine=e).needs("evaluate", 1, **job).gpu for e in ("transformers", "vllm")] == [5, 4]


def test_a_server_or_a_split_of_unknown_size_stops_no_plan():
    estimated = planner({"gpu_memory": 80, "gpus_per_node": 4, "longest_hours": 7})
    asked = {"task": "gsm8k", "split": "train", "style": "cot"}
    assert estimated.needs("teach", 1, teacher="gpt-3.5", **asked).gpu == 0
    object.__setattr__(estimated.assumed, "items", {})
    assert estimated.needs("teach", 1, teacher="llama-2-70b", **asked).runtime == 7 * 60


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (
            {"gpu_memory": 80, "gpus_per_node": 1},
            "teachers.llama-2-70b: rule teach does not fit on a node: it takes 141.9 GB, and 1.5 GB on each GPU: 2 GPUs",
        ),
        (
            # Seven would hold it, but vLLM divides evenly.
            {"gpu_memory": 24, "gpus_per_node": 7},
            "teachers.llama-2-70b: rule teach does not fit on a node: it takes 141.9 GB, and 1.5 GB on each GPU: 8 GPUs",
        ),
        (
            {"gpu_memory": 40, "gpus_per_node": 4},
            "students.llama-2-70b: rule evaluate does not fit on a node: it takes 145.8 GB",
        ),
        (
            {"gpu_memory": 16, "gpus_per_node": 99},
            "students.llama-2-70b: rule instruct does not fit on a node: each GPU must hold 55.3 GB, and one of 16 GB",
        ),
    ],
)
def test_a_study_that_no_node_can_hold_is_refused(cluster, message):
    students = ["llama-2-7b", "llama-2-70b"]
    with pytest.raises(UserError) as caught:
        planner(cluster, study={"students": students}, teachers={"llama-2-70b": {"engine": "vllm"}})
    assert str(caught.value).startswith(f"configuration: {message}")


@pytest.mark.parametrize(("arms", "fits"), [(["baseline"], True), (["instruct"], False), (["refine-only"], False)])
def test_only_the_studys_own_stages_must_fit(arms, fits):
    cluster = {"gpu_memory": 16, "gpus_per_node": 99}
    only = {"students": ["llama-2-70b"], "teachers": ["gpt-3.5"], "arms": arms}
    if fits:
        planner(cluster, study=only)
        return
    with pytest.raises(UserError, match="does not fit"):
        planner(cluster, study=only)


def rows() -> list[str]:
    """The table of docs/cluster.md: models on GPUs of three sizes, eight in a node."""
    lines = []
    for name, model in MODELS.items():
        for title, stage, changes in (
            ("`sample`", "sample", {}),
            ("`sample`, `batch_size: 16`", "sample", {"students": {model: {"batch_size": 16}}}),
            ("`instruct`", "instruct", {}),
            ("`refine`", "refine", {}),
        ):
            cells = []
            for memory in (24, 40, 80):
                estimated = planner({"gpu_memory": memory, "gpus_per_node": 8}, **changes)
                held = estimated.memory(stage, **jobs(model)[stage])
                try:
                    needs = estimated.needs(stage, 1, **jobs(model)[stage])
                    cells.append(str(needs.gpu) if needs.gpu <= 8 else "–")
                except UserError:
                    cells.append("–")
            cells = [f"{held.divided:.1f}", f"{held.each:.1f}", *cells, f"{needs.mem_mb:,}", f"{needs.runtime:,}"]
            lines.append(f"| {name} | {title} | {' | '.join(cells)} |")
    return lines


def test_the_worked_examples_are_what_is_estimated():
    """`pytest tests/test_resources.py -s -k worked` prints them."""
    text = (REPOSITORY / "docs/cluster.md").read_text()
    table = rows()
    print("\n" + "\n".join(table))
    assert [row for row in table if row not in text] == []
