"""`bench/peers.py study`: the quickstart by Snakemake, and the same work as a user would script it.

Both sides get the sources and weights as they were fetched, in folders of their own; the user's results/ is only read.
The script gets the prepared items, the demonstrations and the exported tasks as well, which the workflow makes itself.
It runs in series: SFT with TRL, sampling with `transformers.generate`, pairs, DPO with TRL, and lm_eval with its HF
model on three benchmarks for each checkpoint. It computes in bfloat16, or in float32 where the processor is faster in
that.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from before import has_store
from products import described
from quickstart import ROOT, Quickstart, write
from report import last_line, table
from trainers import product_rates, run, torch_threads

from selfrefine.answers.extraction import extract, matches
from selfrefine.store.files import read_json, write_jsonl

HERE = Path(__file__).parent
# The study sets an empty system message, so the chat template should not add one of its own.
EMPTY_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{% set messages = [{'role': 'system', 'content': ''}] + messages %}"
    "{% endif %}"
)


def measure(args: argparse.Namespace, study: Quickstart) -> None:
    """Prints the table and the last line."""
    torch_threads(args.threads)
    rates = product_rates(study)
    machine = described(args.threads) | {"gemm_gflops": rates}
    compute = "bfloat16" if rates["bfloat16"] > rates["float32"] else "float32"
    found = {"ours": workflow(args, study, ROOT, study.scratch / "ours")}
    if args.before:
        found["before"] = workflow(args, study, args.before, study.scratch / "workflow-before")
    steps = script(args, study, study.scratch / "ours/results", compute)
    found["script"] = {"seconds": sum(steps.values()), "compute": compute, "steps": steps}
    ours = found["ours"]["seconds"]
    print("The quickstart study" + (f", of every {study.part}th item" if study.part > 1 else "") + "\n")
    rows = [["ours: snakemake", ours, None]]
    rows += (
        [["before: snakemake", found["before"]["seconds"], found["before"]["seconds"] / ours]] if args.before else []
    )
    rows += [[f"script: {name}", seconds, None] for name, seconds in steps.items()]
    table(["", "s", "over ours"], [*rows, ["script, whole", sum(steps.values()), sum(steps.values()) / ours]])
    ratio = {name: row["seconds"] / ours for name, row in found.items() if name != "ours"}
    last_line({"bench": "study", "machine": machine, "quick": args.quick, "seconds": found, "ratio": ratio})


def workflow(args: argparse.Namespace, study: Quickstart, checkout: Path, folder: Path) -> dict:
    """{seconds} of Snakemake in a fresh copy of a checkout, without fetching.

    A checkout without a store fetches its sources itself.
    """
    listed = ["git", "-C", checkout, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (checkout / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, target)
    for one in study.finals.behind_all() if has_store(checkout) else ():
        if one.stage in ("fetch", "fetch_model") and (study.folder / one.record).exists():
            shutil.copytree(study.folder / one.folder, folder / one.folder)
    command = ["snakemake", "--cores", args.threads, "--quiet", "all"]
    if args.quick:
        path = folder / "cut.yaml"
        path.write_text(yaml.safe_dump(cut(study)))
        command += ["--configfile", "config/config.yaml", path]
    run([*command, "--until", "fetch", "fetch_model"], folder, cwd=folder)
    began = time.perf_counter()
    run(command, folder, cwd=folder)
    return {"seconds": time.perf_counter() - began}


def cut(study: Quickstart) -> dict:
    """Every so many-th item, as a configuration."""
    sizes = {}
    for task, benchmark in study.settings["benchmarks"].items():
        splits = {name: {"size": split["size"] // study.part} for name, split in benchmark["splits"].items()}
        sizes[task] = {"splits": splits}
    return {"benchmarks": sizes}


def script(args: argparse.Namespace, study: Quickstart, made: Path, compute: str) -> dict[str, float]:
    """The seconds of each step. `made` is the workflow's results/: the items, the demonstrations and the tasks."""
    folder = study.scratch / "script"
    folder.mkdir()
    work = Quickstart(made, folder)
    model = _without_system(study.model, folder / "model")
    shared = {"model": str(model), "threads": args.threads}
    trl = "default" if compute == "bfloat16" else compute
    steps: dict[str, float] = {}

    task = shared | {"stage": "sft", "adapter": None, "compute": trl, "output": str(folder / "sft")}
    task |= {"data": {"train": work.demonstrations()}, "settings": study.settings["instruct"]}
    steps["SFT with TRL"] = _run_trl(task, folder)

    asked = work.sampling()
    task = shared | {"adapter": str(folder / "sft"), "compute": compute, "batch": study.batch, "asked": asked}
    task |= {"output": str(folder / "texts.json")}
    steps["sampling with generate"] = run(
        [sys.executable, HERE / "plain_sample.py", write(folder / "sample.json", task)], folder
    )

    data = work.pairs(_paired(work, read_json(folder / "texts.json"), folder / "pairs.jsonl"))
    adapters = {"baseline": None, "instruct": folder / "sft"}
    if data["train"] and data["validation"]:
        settings = study.settings["refine"] | {"lora": study.settings["instruct"]["lora"]}
        task = shared | {"stage": "dpo", "adapter": str(folder / "sft"), "compute": trl}
        task |= {"data": data, "settings": settings, "output": str(folder / "dpo")}
        steps["DPO with TRL"] = _run_trl(task, folder)
        adapters["refine"] = folder / "dpo"
    else:
        # As in the workflow: the student stays as it was, and is evaluated.
        adapters["refine"] = folder / "sft"
    tasks = made / "store/export_task"
    shutil.copytree(tasks, folder / tasks.relative_to(made.parent))
    for name, adapter in adapters.items():
        steps[f"lm_eval of {name}"] = _evaluate(study, folder, model, adapter, compute, args.threads)
    return steps


def _without_system(model: Path, folder: Path) -> Path:
    """A model's folder whose template adds no system message of its own."""
    shutil.copytree(model, folder)
    template = folder / "chat_template.jinja"
    template.write_text(EMPTY_SYSTEM + template.read_text())
    return folder


def _run_trl(task: dict, folder: Path) -> float:
    Path(task["output"]).mkdir()
    return run([sys.executable, HERE / "plain_trl.py", write(folder / f"{task['stage']}.json", task)], folder)


def _paired(work: Quickstart, texts: list[str], path: Path) -> Path:
    """Correct chains of thought over answers without one, of the same question: the recipe `cot`."""
    items = list(work.items().values())
    counts = work.settings["sampling"]
    chains, rest = texts[: len(items) * counts["cot"]], texts[len(items) * counts["cot"] :]
    rows = []
    for place, item in enumerate(items):
        mine = chains[place * counts["cot"] : (place + 1) * counts["cot"]]
        correct = [
            text for text in mine if matches(extract(text, item["kind"], item["choices"]), item["answer"], item["kind"])
        ]
        if correct:
            split = "validation" if place % round(1 / work.settings["validation"]) == 0 else "train"
            row = {"id": item["id"], "item": item["id"], "split": split, "prompt": "cot"}
            rows.append(row | {"chosen": {"text": correct[0]}, "rejected": {"text": rest[place * counts["plain"]]}})
    write_jsonl(path, rows)
    return path


def _evaluate(study: Quickstart, folder: Path, model: Path, adapter: Path | None, compute: str, threads: int) -> float:
    peft = f",peft={adapter}" if adapter else ""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--apply_chat_template"]
    command += ["--model_args", f"pretrained={model},dtype={compute}{peft}", "--batch_size", study.batch]
    command += ["--include_path", "results/store/export_task", "--tasks", ",".join(study.settings["study"]["evaluate"])]
    command += ["--output_path", folder / f"scores-{adapter.name if adapter else 'base'}"]
    return run(command, folder, cwd=folder, OMP_NUM_THREADS=str(threads), HF_DATASETS_CACHE=str(folder / "datasets"))
