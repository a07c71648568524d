"""Says in one screen why an artifact would be made again: which setting, function or input changed, from what to what.

python scripts/why.py results/summary.md
python scripts/why.py results/checkpoints/…/manifest.json --configfile config/mine.yaml

Nothing is run and nothing is changed. Run it where `snakemake` is run.
"""

import argparse
import difflib
import logging
from pathlib import Path

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.files import read_json
from selfrefine.fingerprint import Code, read_code, scripts_folder

LINES = 30


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("artifact", help="a file of the results")
    parser.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
    parser.add_argument("--snakefile", type=Path, default=Path("Snakefile"), help="default: Snakefile")
    return parser.parse_args()


def plan(snakefile: Path, configfiles: list[Path], targets: tuple[str, ...] = ()):
    """Snakemake's own plan, for some targets or for the whole study: its graph of jobs, and the bookkeeping that decided."""
    from snakemake.api import SnakemakeApi
    from snakemake.exceptions import IOException, MissingRuleException, WorkflowError
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL}, log_level_override=logging.ERROR)) as api:
        opened = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=configfiles),
            snakefile=snakefile.resolve(),
        )
        opened.dag(DAGSettings(targets=set(targets)))
        workflow = opened._workflow
        try:
            workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
            workflow._build_dag()
        except (WorkflowError, MissingRuleException, IOException) as error:
            raise UserError(f"{', '.join(targets) or 'the study'}: snakemake cannot plan it: {error}") from None
        return workflow.dag, workflow.persistence


def explain(job, dag, records) -> list[str]:
    """What changed for one job itself, line by line; empty where it only follows others."""
    lines = []
    for reason in records.params_changed(job):
        if reason.startswith("code: "):
            lines += code_changes(reason.removeprefix("code: ").split(" → ")[0], records.script_of(job))
        else:
            lines.append(reason)
    missing = (path for path in dag.reason(job).missing_output if not Path(path).exists())
    return lines or [f"{path} is missing" for path in missing]


def code_changes(recorded: str, script: Path) -> list[str]:
    """The parts of the code that differ between what ran and what is here, each with its changed lines."""
    kept = Path(f"results/code/{recorded}.json")
    if not kept.exists():
        return [f"{kept} is not there, so what ran cannot be compared"]
    then = read_json(kept)
    before = Code(then["files"])
    folder = scripts_folder(script)
    now = read_code(folder)
    old, new = before.parts(then["script"]), now.parts(script.resolve().relative_to(folder).as_posix())
    versions = ((before, old), (now, new))
    lines = []
    for path, part in sorted({*old, *new}):
        if old.get((path, part)) != new.get((path, part)):
            lines.append(f"code: {part} in scripts/{path}")
            texts = [source(code, path, part) if (path, part) in parts else [] for code, parts in versions]
            lines += [
                f"  {line}"
                for line in difflib.unified_diff(*texts, lineterm="", n=0)
                if line[:2] not in ("--", "++", "@@")
            ]
    return lines


def source(code: Code, path: str, part: str) -> list[str]:
    """A part's lines as they stand in its file."""
    return code.module(path).source(part) if path.endswith(".py") else code.texts[path].splitlines()


def main() -> None:
    args = arguments()
    dag, records = plan(args.snakefile, args.configfile, (args.artifact,))
    (target,) = dag.targetjobs
    if not dag.needrun(target):
        print(f"{args.artifact} is up to date: it would not be made again.")
        return
    behind = [job for level in dag.toposorted() for job in level if dag.needrun(job)]
    causes: dict[tuple, list] = {}
    for job in behind:
        if lines := explain(job, dag, records):
            causes.setdefault((job.rule.name, *lines), []).append(job)
    print(f"{args.artifact} would be made again: {len(behind)} jobs. What changed:")
    for (rule, *lines), jobs in causes.items():
        more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
        print(f"\n{rule}, for {jobs[0].output[0]}{more}")
        print("\n".join(f"  {line}" for line in (lines if len(lines) <= LINES else [*lines[:LINES], "…"])))


if __name__ == "__main__":
    cli.run(main)
