"""One run of Snakemake: its study, its hold on the store, what it prints at start and end."""

import atexit
import gc
import os
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

from selfrefine.errors import UserError
from selfrefine.report.figures.font_note import LACKING, lacking_font
from selfrefine.schema.assumptions import Assumptions
from selfrefine.store.files import check_writable, read_json
from selfrefine.store.invocations import note_files
from selfrefine.store.locations import STORE, summary_file
from selfrefine.store.locks import occupy, stamp_of
from selfrefine.store.register import register
from selfrefine.study.artifact import Artifact
from selfrefine.study.design import Study
from selfrefine.study.duration import expected_duration
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.hub_access import check_access
from selfrefine.study.hub_sources import gated
from selfrefine.study.idle_settings import idle_settings
from selfrefine.study.model_uses import check_models
from selfrefine.study.open_study import finals_of
from selfrefine.study.pinned_files import check_pinned_files
from selfrefine.study.planning import Planner
from selfrefine.study.resolve import stock_task
from selfrefine.study.warm_up import long_warm_ups
from selfrefine.study.yaml_files import check_keys, read_yaml
from selfrefine.workflow import slurm_plugin
from selfrefine.workflow.evaluation_jobs import EvaluationJobs
from selfrefine.workflow.failures import killed_for_memory, reasons
from selfrefine.workflow.interruption import Interruption
from selfrefine.workflow.refusal import Error, refused
from selfrefine.workflow.rule_flags import RuleFlags
from selfrefine.workflow.rule_inputs import RuleInputs
from selfrefine.workflow.rule_resources import RuleResources

# The rules that fetch from the Hugging Face hub, if anything is from there.
FETCHING = ("fetch", "fetch_model", "fetch_task")


class Session:
    """The validated study of one run of Snakemake, and the functions that its rules are made of.

    `workflow` and `config` are Snakemake's own, `root` is the folder of the Snakefile.
    """

    def __init__(self, workflow: Any, config: dict[str, Any], root: Path):
        keep_loaded()
        self._workflow = workflow
        # On a node, Snakemake reads the Snakefile again for one job; only the process that plans keeps what it has
        # hashed.
        plans = workflow.is_main_process
        # The cores that profiles/default names are this machine's; jobs that are sent elsewhere are not bound to them.
        if self._on_nodes():
            workflow.global_resources["_cores"] = None
        self._planned_at = stamp_of(STORE)
        self._occupied: TextIO | None = None
        with refused():
            for path in workflow.configfiles if plans else ():
                check_keys(path)
            self.study = Study.read(config).located(root)
            self.finals = finals_of(self.study, keep=plans)
            assumptions = read_yaml(root / "config/assumptions.yaml")
            items = self.finals.artifacts.items
            self.planner = Planner(self.study, Assumptions.read(assumptions), lambda *of: items(*of).file)
            if plans:
                check_models(self.finals.artifacts)
                if self.finals.hashes:
                    check_pinned_files(self.finals.artifacts, self.finals.hashes)
                found = [*long_warm_ups(self.study, lambda *of: items(*of).file), *idle_settings(self.study)]
                warnings = [f"Beware: {each}" for each in found]
                notes = [*hub_data(self.finals), *gated(self.finals)]
                for line in [*warnings, *notes]:
                    print(line, file=sys.stderr, flush=True)
        self.inputs = RuleInputs(self.finals, root, plans)
        self.resources = RuleResources(self.study, self.planner, self.inputs)
        self.evaluations = EvaluationJobs(self.finals, self.inputs, self.resources)
        self.flags = RuleFlags(self.study)
        self._interruption = Interruption(workflow)
        self._killed = killed_for_memory()
        self._delete_outputs, workflow.delete_output = workflow.delete_output, self.delete
        self._execute, workflow.execute = workflow.execute, self.execute

    def execute(self, **options: Any) -> None:
        """What Snakemake calls to plan and to run: refuses to plan what could not be written."""
        if self._workflow.is_main_process and not options["executor_plugin"].common_settings.dryrun_exec:
            with refused():
                self._check_writable()
        with self._interruption.as_status():
            self._execute(**options)

    def _check_writable(self) -> None:
        """`UserError` if something is to be made and the results' folder cannot be written to."""
        try:
            check_writable(STORE)
        except UserError:
            # Not before: all of a study is planned for it, and a run may ask for a part.
            records = [str(one.record) for one in self.finals.all()]
            if not all(map(os.path.exists, (*records, self.finals.shown()))):
                raise

    def begin(self, stream: TextIO = sys.stderr) -> None:
        """Takes the store, alone; says how long the jobs will take, where that is worth saying."""
        executor = self._workflow.executor_plugin
        if executor.common_settings.non_local_exec and self.study.cluster is None:
            raise Error(
                "configuration: cluster: is missing, so jobs would ask for no GPUs; slurm/config.yaml sets it under "
                "`config`, which `--config` on the command line replaces: put settings of the study into its file "
                "instead"
            )
        if executor.name == "slurm":
            slurm_plugin.install(stream)
        self._interruption.install(stream, here=not executor.common_settings.non_local_exec)
        with refused():
            check_access(self.study, self._fetched())
            self._occupied = occupy(STORE, self._planned_at)
            register(self.study.study.name, self.finals.listings.policy())
            note_files(STORE, self.study.study.name, self._workflow.config_settings.configfiles)
            if self.finals.hashes:
                self.finals.hashes.save()
        if not self._on_nodes() and self._is_whole():
            jobs = [(one.stage, one.of) for one in self.finals.missing()]
            cores = self._workflow.resource_settings.cores
            said = expected_duration(self.study, self.planner.assumed, jobs, cores, self.planner.work.items_of)
            if said:
                print(said, file=stream, flush=True)

    def end(self) -> None:
        """Shows the summary; refuses to call a study done that is not."""
        if not self._is_whole():
            return
        missing = [str(one.record) for one in self.finals.all() if not one.record.exists()]
        if missing and self._workflow.touch:
            raise Error(
                f"`--touch` makes nothing, and {len(missing)} artifacts of this configuration are not there: start "
                "snakemake without `--touch`; `study.py why` says what has changed"
            )
        if missing:
            raise Error(f"not made, start snakemake again: {', '.join(missing)}")
        figures = [self.finals.plot(name) for name in self.study.figures()]
        if lacking := {*"".join(str(read_json(one.record)["figures"].get(LACKING, "")) for one in figures)}:
            print(f"Figures: {lacking_font(''.join(sorted(lacking)))}\n", file=sys.stderr)
        summary = summary_file(self.study.study.name)
        print(f"{summary}\n\n{summary.read_text()}", end="")

    def failed(self) -> None:
        """Says of the jobs that failed what their logs cannot say."""
        is_here = not self._workflow.executor_plugin.common_settings.non_local_exec
        if is_here and not self._interruption.begun:
            for line in reasons(self._workflow.scheduler.failed, self._killed):
                print(f"error: {line}", file=sys.stderr, flush=True)

    def delete(self, only_temp: bool = False, dryrun: bool = False) -> None:
        """What `snakemake --delete-all-output` does: also removes what rules do not declare, as weights beside records."""
        self._delete_outputs(only_temp=only_temp, dryrun=dryrun)
        shown = summary_file(self.study.study.name).parent
        for folder in [] if only_temp else [*(one.record.parent for one in self.finals.behind_all()), shown]:
            if folder.exists():
                print(f"{'Would delete' if dryrun else 'Deleting'} {folder}/", file=sys.stderr)
            if not dryrun:
                shutil.rmtree(folder, ignore_errors=True)

    def _fetched(self) -> list[Artifact]:
        """What this run is about to fetch."""
        jobs = [job for job in self._workflow.dag.needrun_jobs() if job.rule.name in FETCHING]
        return [self.inputs.artifact_of(job.rule.name, job.wildcards) for job in jobs]

    def _on_nodes(self) -> bool:
        """Whether jobs are sent elsewhere."""
        return self._workflow.resource_settings.nodes is not None

    def _is_whole(self) -> bool:
        """Whether the whole study is asked for."""
        asked = self._workflow.dag_settings
        return not (set(asked.targets) - {"all"} or asked.until or asked.omit_from)


def hub_data(finals: FinalArtifacts) -> list[str]:
    """What is still to be fetched from the Hugging Face hub for tasks of lm-eval, in words."""
    lines = []
    for name in finals.study.stock():
        data = stock_task(finals.study, name).data
        if data and not finals.artifacts.stock_task(name).record.exists():
            lines.append(
                f"{name} needs the data set {data} of the Hugging Face hub: job fetch_task fetches it where snakemake "
                "runs, which must reach the hub or have it in its cache; jobs on nodes need no network"
            )
    return lines


def keep_loaded() -> None:
    """Looks for no garbage any more in what is loaded by now, and at the end in nothing."""
    gc.freeze()
    atexit.register(gc.freeze)
