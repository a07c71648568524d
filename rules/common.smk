# What the rules share: the study, opened, and the functions with which a rule finds what a job reads and takes.

import os
import sys
from pathlib import Path

ROOT = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(ROOT / "scripts"))

from selfrefine.store.locations import KEY, TABLES
from selfrefine.study.listings import write_listing
from selfrefine.workflow.rule_flags import KEEP_MEMORY, teachers_among, teachers_but
from selfrefine.workflow.rule_resources import launcher
from selfrefine.workflow.session import Session

# Jobs run with this interpreter's `python`, also where the virtual environment is not activated, and find the
# scripts from whatever folder they run in.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]), SELFREFINE=str(ROOT / "scripts")
)

session = Session(workflow, config, ROOT)
study, inputs, flags, evaluations = session.study, session.inputs, session.flags, session.evaluations
made, flagged, settings, code = inputs.made, inputs.flagged, inputs.settings, inputs.code
needs = session.resources.needs

# vLLM's environment has all that the pipeline's has, and is larger: it is made only where the study generates with it.
STUDENT_ENVIRONMENT = "../envs/vllm.yaml" if study.engine == "vllm" else "../envs/pipeline.yaml"
TEACHER_ENVIRONMENT = "../envs/vllm.yaml" if study.teaches_with("vllm") else "../envs/pipeline.yaml"


wildcard_constraints:
    key=KEY,
    names=".+",
    teacher="[A-Za-z0-9][A-Za-z0-9._-]*",
    model="[A-Za-z0-9][A-Za-z0-9._-]*",
    study="[A-Za-z0-9][A-Za-z0-9._-]*",
    time="[0-9]+",
    name="[A-Za-z0-9][A-Za-z0-9._-]*",
