# What the rules share: the validated study, its artifacts, and how a rule finds the inputs of one by the key in its path.

import atexit
import gc
import inspect
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

ROOT = Path(str(workflow.current_basedir)).parent
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "rules")]

import queueing
from selfrefine.duration import foretell
from selfrefine.errors import UserError
from selfrefine.files import canonical_json
from selfrefine.finals import TABLES, write_listing
from selfrefine.keys import STORE
from selfrefine.opening import finals_of
from selfrefine.planning import Assumptions, Needs, Planner
from selfrefine.progress import watch
from selfrefine.resources import host_mb
from selfrefine.store import occupy, stamp_of
from selfrefine.study import Study

# Jobs run with this interpreter's `python`, also where the virtual environment is not activated, and find the scripts here
# whatever folder they run in.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]), SELFREFINE=str(ROOT / "scripts")
)

# glibc otherwise hands large blocks back to the kernel after each use, which slows training on a CPU (bench/allocator.py);
# generation gains nothing by it and would hold several times the memory.
KEEP_MEMORY = f"MALLOC_MMAP_THRESHOLD_={4 << 30} MALLOC_TRIM_THRESHOLD_={16 << 30} MALLOC_TOP_PAD_={256 << 20}"

# What is loaded by now stays: no garbage is looked for in it again, and at the end in nothing.
gc.freeze()
atexit.register(gc.freeze)

queueing.install()
# The cores that profiles/default names are this machine's; jobs that are sent elsewhere are not bound to them.
if workflow.resource_settings.nodes is not None:
    workflow.global_resources["_cores"] = None

planned_at = stamp_of(STORE)

try:
    study = Study.read(config).located(ROOT)
    # On a node, Snakemake reads this file again for one job; only the driver keeps what it has hashed.
    finals = finals_of(study, keep=workflow.is_main_process)
    artifacts = finals.artifacts
    assumptions = yaml.safe_load((ROOT / "config/assumptions.yaml").read_text())
    planner = Planner(study, Assumptions.read(assumptions), lambda *of: artifacts.items(*of).file)
except UserError as error:
    raise WorkflowError(str(error)) from None

# vLLM's environment has all that the pipeline's has, and is larger: it is made only where the study generates with it.
STUDENT_ENVIRONMENT = "../envs/vllm.yaml" if study.engine == "vllm" else "../envs/pipeline.yaml"
TEACHER_ENVIRONMENT = "../envs/vllm.yaml" if study.teaches_with("vllm") else "../envs/pipeline.yaml"


wildcard_constraints:
    key="[0-9a-f]{12}",
    names=".+",
    teacher="[A-Za-z0-9][A-Za-z0-9._-]*",
    model="[A-Za-z0-9][A-Za-z0-9._-]*",
    study="[A-Za-z0-9][A-Za-z0-9._-]*",
    time="[0-9]+",
    name="[A-Za-z0-9][A-Za-z0-9._-]*",


@cache
def _artifact(stage, values, key):
    try:
        return finals.at(stage, "/".join(value for value in values if value != key), key)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def signed(function):
    """A function that Snakemake calls for each job: it takes the signature each time, and finds it here."""
    function.__signature__ = inspect.signature(function)
    return function


def artifact_of(stage, wildcards):
    """The artifact of a stage that a path's wildcards name: all before the key are its names, in their order."""
    return _artifact(stage, tuple(wildcards), wildcards.key)


def at_any_age(paths, done):
    """Inputs of a job whose record is `done`: what is finished does not look at them again.

    Where the record is not there, the job runs and waits for its inputs. Where it is, their ages mean nothing, and one that is
    gone is not made again for it: the Snakefile stands in its place.
    """
    if not os.path.exists(done):
        return paths
    return [ancient(path if os.path.exists(path) else str(ROOT / "Snakefile")) for path in paths]


def made(stage, *flags):
    """An input function: the records of what a stage reads under these flags."""

    @signed
    def inputs(wildcards):
        one = artifact_of(stage, wildcards)
        paths = [str(each.record) for flag in flags for each in one.inputs.get(flag, ())]
        return at_any_age(paths, one.record)

    return inputs


def flagged(stage, *flags):
    """A params function: the inputs that not every job of a stage has, as command-line flags."""

    @signed
    def text(wildcards):
        inputs = artifact_of(stage, wildcards).inputs
        found = ((flag.replace("_", "-"), each.record) for flag in flags for each in inputs.get(flag, ()))
        return " ".join(f"--{flag} {shlex.quote(str(path))}" for flag, path in found)

    return text


def recipe(stage):
    """A params function: a job's settings as canonical JSON, those that its key was taken of."""
    return signed(lambda wildcards: canonical_json(artifact_of(stage, wildcards).settings))


def code(stage):
    """The version of a stage's code, or its fingerprint, as it stands in the key: where one job runs, a params function."""
    if workflow.is_main_process:
        return artifacts.code(stage)
    return signed(lambda wildcards: artifact_of(stage, wildcards).code)


def sources(stage):
    """A params function: the local files that a job reads, with the contents that stand in its key, as JSON."""
    return signed(lambda wildcards: canonical_json(dict(artifact_of(stage, wildcards).sources)))


NO_CLUSTER = Needs(0, host_mb(0, 1), None)


@cache
def _needs(stage, values, key, attempt):
    return planner.needs(stage, attempt, **_artifact(stage, values, key).of)


def needs(resource, stage):
    """A resources function: what a job asks a cluster for, more at each attempt; a value where there is no cluster."""
    # A value cannot say that there is no limit.
    if study.cluster is None and resource != "runtime":
        return getattr(NO_CLUSTER, resource)

    @signed
    def value(wildcards, attempt):
        return getattr(_needs(stage, tuple(wildcards), wildcards.key, attempt), resource)

    return value


def source(wildcards):
    """Where a raw file or a model comes from, as JSON."""
    if "model" in wildcards.keys():
        found = study.models[wildcards.model]
    else:
        of = artifact_of("fetch", wildcards).of
        found = study.benchmarks[of["task"]].files[of["file"]]
    return found.model_dump_json(include={"source", "parts", "sha256", "licence"})


@signed
def launcher(wildcards, resources):
    """How a training job starts: with one process for each of its GPUs."""
    gpus = resources.get("gpu", 0)
    if gpus < 2:
        return "python"
    return (
        f"accelerate launch --multi_gpu --num_processes {gpus} --num_machines 1 --main_process_port 0"
        " --mixed_precision no --dynamo_backend no"
    )


def teachers_among(names):
    """A pattern that only these teachers match; none, if there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def teachers_but(names):
    """A pattern that all teachers but these match."""
    return f"(?!(?:{teachers_among(names)})/)[A-Za-z0-9][A-Za-z0-9._-]*"


def vllm_flags(engine):
    """How vLLM uses the GPUs, as command-line flags: no part of the settings. Nothing for other engines."""
    if engine != "vllm":
        return ""
    return f"--memory {study.vllm.memory:g}" + " --batch-invariant" * study.vllm.batch_invariant


def compute_flag():
    """What weights are multiplied in, where the study overrides the machine's choice: no part of the settings."""
    return "" if study.compute == "auto" else f"--compute {study.compute}"


def teacher_vllm_flags(wildcards):
    return vllm_flags(study.teachers[wildcards.teacher].engine)


def server_or_recording(wildcards):
    """Where and how a served teacher is asked, or where a recording lies, as a flag: no part of the settings."""
    teacher = study.teachers[wildcards.teacher]
    if teacher.engine == "openai":
        return f"--server {shlex.quote(teacher.server.model_dump_json())}"
    return f"--recording {shlex.quote(teacher.recording)}"


# Evaluations of one checkpoint share a load of its weights: the job that has loaded them evaluates on the other benchmarks too,
# if nobody else does. On a cluster they are one job, in which they follow each other.
TOGETHER = study.cluster is not None and study.cluster.evaluate_together
EVALUATIONS = "evaluate" if TOGETHER else None


@cache
def _evaluated_on():
    found = {}
    for cell in study.cells():
        found.setdefault(cell["checkpoint"], {})[cell["evaluation"]] = True
    return found


def _siblings(checkpoint):
    return [artifacts.evaluation(checkpoint, task) for task in _evaluated_on().get(checkpoint, ())]


def _together(own):
    """The evaluations that are to be made in one job with this one, which is among them."""
    siblings = _siblings(own.of["checkpoint"])
    if not TOGETHER or own not in siblings:
        return [own]
    return [one for one in siblings if one is own or not one.record.exists()]


@signed
def evaluated_before(wildcards):
    """The evaluation that this one follows in its checkpoint's job; also the last one to be made, if that one is made."""
    own = artifact_of("evaluate", wildcards)
    siblings = _siblings(own.of["checkpoint"])
    if not TOGETHER or own not in siblings[1:]:
        return []
    *others, last = siblings[: siblings.index(own)]
    gap = last.record.exists() and not own.record.exists()
    missing = [one for one in others if gap and not one.record.exists()]
    return at_any_age([str(one.record) for one in (last, *missing[-1:])], own.record)


def evaluation_minutes(wildcards, attempt):
    """A resources function: how long an evaluation may take; those of one job may not take longer than the partition lets it."""
    own = artifact_of("evaluate", wildcards)
    minutes = needs("runtime", "evaluate")(wildcards, attempt)
    if minutes is None:
        return None
    return min(minutes, max(1, int(study.cluster.longest_hours * 60) // len(_together(own))))


def also(stage):
    """A params function: the evaluations that a job may take along while it has a checkpoint loaded, as JSON."""

    # Of a function that takes its input, Snakemake keeps no value: a further benchmark is no reason to run.
    @signed
    def text(wildcards, input):
        own = artifact_of(stage, wildcards)
        # A cluster has the evaluations in a job of their own: pairs shall not wait for them.
        if own.record.exists() or study.cluster is not None and (stage == "sample" or not TOGETHER):
            return "[]"
        listed = [
            {
                "record": str(one.record),
                "task": str(one.inputs["task"][0].record),
                "recipe": one.settings,
                "code": one.code,
            }
            for one in _siblings(own.of.get("checkpoint", own.of.get("start")))
            if one is not own
        ]
        return canonical_json(listed)

    return text


def results(wildcards):
    """The records of all that the study is asked for, and the marker of its results' names; refuses what cannot be made."""
    try:
        return [*(str(one.record) for one in finals.all()), finals.shown()]
    except UserError as error:
        raise WorkflowError(str(error)) from None


def is_whole(workflow):
    """Whether the whole study is asked for."""
    asked = workflow.dag_settings
    return not (set(asked.targets) - {"all"} or asked.until or asked.omit_from)


def begin(workflow, stream):
    """Takes the store, alone; says how long the jobs will take, where it is worth saying, and from then on how far they are."""
    queueing.refuse_without_cluster(workflow, study)
    try:
        globals()["occupied"] = occupy(STORE, planned_at)
        finals.hashes.save()
    except UserError as error:
        raise WorkflowError(str(error)) from None
    if workflow.resource_settings.nodes is None and is_whole(workflow):
        jobs = [(one.stage, one.of) for one in finals.missing()]
        if said := foretell(study, planner.assumed, jobs, workflow.resource_settings.cores, planner.items_of):
            print(said, file=stream, flush=True)
    watch(Path("logs"), stream)


def end(workflow):
    """Shows the summary; refuses to call a study done that is not."""
    if not is_whole(workflow):
        return
    if missing := [str(one.record) for one in finals.all() if not one.record.exists()]:
        raise WorkflowError(f"not made, start snakemake again: {', '.join(missing)}")
    print(Path("results", study.study.name, "summary.md").read_text())
