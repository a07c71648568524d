# What the rules share: the validated study, each job's recipe, and the fingerprint of the code it runs.

import atexit
import gc
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

sys.path[:0] = [str(Path(workflow.basedir) / folder) for folder in ("scripts", "rules")]

import bookkeeping
import queueing
from selfrefine.duration import foretell
from selfrefine.errors import UserError
from selfrefine.files import whole_file
from selfrefine.fingerprint import fingerprint
from selfrefine.planning import Assumptions, Planner
from selfrefine.progress import watch
from selfrefine.study import Study, origin_of, student_of, teacher_of

# Jobs run with this interpreter's `python`, also where the virtual environment is not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))

# glibc otherwise hands large blocks back to the kernel after each use, which slows training on a CPU (bench/allocator.py);
# generation gains nothing by it and would hold several times the memory.
KEEP_MEMORY = f"MALLOC_MMAP_THRESHOLD_={4 << 30} MALLOC_TRIM_THRESHOLD_={16 << 30} MALLOC_TOP_PAD_={256 << 20}"

# What is loaded by now stays: no garbage is looked for in it again, and at the end in nothing.
gc.freeze()
atexit.register(gc.freeze)

bookkeeping.install()
queueing.install()
# The cores that profiles/default names are this machine's; jobs that are sent elsewhere are not bound to them.
if workflow.resource_settings.nodes is not None:
    workflow.global_resources["_cores"] = None

try:
    study = Study.read(config)
    assumptions = yaml.safe_load((Path(workflow.basedir) / "config/assumptions.yaml").read_text())
    planner = Planner(study, Assumptions.read(assumptions))
except UserError as error:
    raise WorkflowError(str(error)) from None

# vLLM's environment has all that the pipeline's has, and is larger: it is made only where the study generates with it.
STUDENT_ENVIRONMENT = "../envs/vllm.yaml" if study.engine == "vllm" else "../envs/pipeline.yaml"
TEACHER_ENVIRONMENT = "../envs/vllm.yaml" if study.teaches_with("vllm") else "../envs/pipeline.yaml"


wildcard_constraints:
    student="[A-Za-z0-9][A-Za-z0-9._-]*",
    teacher="[A-Za-z0-9][A-Za-z0-9._-]*",
    model="[A-Za-z0-9][A-Za-z0-9._-]*",
    task="[A-Za-z0-9][A-Za-z0-9_-]*",
    recipe="[A-Za-z0-9][A-Za-z0-9_-]*",
    file="[A-Za-z0-9][A-Za-z0-9_-]*[.][a-z]+",
    part="tables|training|reading|asked",
    split="train|test",
    style="cot|plain",
    share="[0-9]+",
    seed="[0-9]+",
    start=".+",
    checkpoint=".+",


def recipe(stage):
    """A params function: the job's slice of the configuration, as canonical JSON."""
    return lambda wildcards: study.recipe(stage, **wildcards)


def code(script):
    """The fingerprint of a script and of the modules it imports, so that a change of behaviour reruns its jobs."""
    path = Path(workflow.basedir) / script
    bookkeeping.SCRIPTS[fingerprint(path)] = path
    return fingerprint(path)


def text(made):
    """A params function: the whole text of a file that the configuration alone decides."""
    return lambda wildcards: made(**wildcards)


def flags(named_files):
    """A params function: the optional inputs that a function names, as command-line flags."""
    return lambda wildcards: " ".join(f"--{name} {path}" for name, path in named_files(wildcards).items())


@cache
def needs_of(stage, attempt, wildcards):
    return planner.needs(stage, attempt, **dict(wildcards))


def needs(resource, stage):
    """A resources function: what a job asks a cluster for, more at each attempt."""
    return lambda wildcards, attempt: getattr(needs_of(stage, attempt, tuple(wildcards.items())), resource)


def source_files(wildcards):
    """The files here that a fetch reads, as far as they are still there."""
    if "model" in wildcards.keys():
        source = study.models[wildcards.model]
    else:
        source = study.benchmarks[wildcards.task].files[wildcards.file.rsplit(".", 1)[0]]
    return [str(path) for path in source.local_files() if path.exists()]


def raw_file(wildcards):
    benchmark = study.benchmarks[wildcards.task]
    name = benchmark.splits[wildcards.split].file
    return f"results/benchmarks/{wildcards.task}/raw/{name}{benchmark.files[name].suffix}"


def held_out_file(wildcards):
    return list(held_out(wildcards).values())


def held_out(wildcards):
    if wildcards.split == "train" and "test" in study.benchmarks[wildcards.task].splits:
        return {"held-out": f"results/benchmarks/{wildcards.task}/test.jsonl"}
    return {}


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
    """How vLLM uses the GPUs, as command-line flags: no part of the recipe. Nothing for other engines."""
    if engine != "vllm":
        return ""
    return f"--memory {study.vllm.memory:g}" + " --batch-invariant" * study.vllm.batch_invariant


def compute_flag():
    """What weights are multiplied in, where the study overrides the machine's choice: no part of the recipe."""
    return "" if study.compute == "auto" else f"--compute {study.compute}"


def teacher_vllm_flags(wildcards):
    return vllm_flags(study.teachers[wildcards.teacher].engine)


def teacher_source(wildcards):
    teacher = study.teachers[wildcards.teacher]
    if teacher.engine == "openai":
        return {}
    if teacher.engine == "recorded":
        return {"recording": teacher.recording}
    return {"model": f"results/models/{teacher.model}/manifest.json"}


def server_or_recording(wildcards):
    """Where and how a served teacher is asked, or what a recorded one said, as a flag; the former is no part of the recipe."""
    teacher = study.teachers[wildcards.teacher]
    if teacher.engine == "openai":
        return f"--server {shlex.quote(teacher.server.model_dump_json())}"
    return flags(teacher_source)(wildcards)


def demonstrations_for_pairs(wildcards):
    if not study.recipes[wildcards.recipe].needs_teacher:
        return {}
    teacher = teacher_of(wildcards.start)
    if teacher is None:
        raise WorkflowError(
            f"recipe {wildcards.recipe!r} draws on a teacher, but {wildcards.start} was instructed by none"
        )
    return {"demonstrations": f"results/demonstrations/{teacher}/{wildcards.task}.jsonl"}


def training_logs(wildcards):
    return INDEX["training"] if wildcards.figure == "training" else []


def write_text(path, content):
    with whole_file(path) as file:
        file.write(content)


def refinement_start(wildcards):
    """Where a refinement's weights start: from what wrote the paths, or from where its first round started."""
    restarts = study.recipes[wildcards.recipe].objective.restart
    return f"results/checkpoints/{origin_of(wildcards.start) if restarts else wildcards.start}/manifest.json"


def accompany(workflow, stream):
    """Says how long the jobs will take, where they run here and it is worth saying, and then how far they are."""
    if workflow.resource_settings.nodes is None:
        jobs = [
            ("teach" if job.rule.name == "ask" else job.rule.name, dict(job.wildcards.items()))
            for job in workflow.dag.needrun_jobs()
        ]
        if said := foretell(study, planner.assumed, jobs, workflow.resource_settings.cores):
            print(said, file=stream, flush=True)
    watch(Path("logs"), stream)


def show_summary(path):
    if Path(path).exists():
        print(Path(path).read_text())
