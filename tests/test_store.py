"""The store wherever and however Snakemake is run: folders, hosts, disks, and what each of its options does exactly."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from conftest import (
    REPOSITORY,
    artifact,
    assert_same_results,
    contents,
    make_study,
    nothing_to_do,
    planned_rules,
    run,
    snakemake,
    target,
)

INSTRUCTED = "tiny/oracle-boxes-100-seed0"
CONFIGURED = ("--configfile", "config/tiny.yaml")
# What follows from judged answers that are others.
FINALS = {"tables", "claims", "flips", "summarise", "page", "plot", "layout", "show"}


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A finished study to go on with."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder, symlinks=True)
    return folder


def change(folder: Path, edit) -> None:
    """Edits the tiny study's configuration."""
    path = folder / "config/tiny.yaml"
    config = yaml.safe_load(path.read_text())
    edit(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes of each file of the artifacts if it is written anew; Snakemake touches files of jobs that ran."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_size)
        for path in folder.glob("results/store/[a-z]*/**/*")
        if path.is_file()
    }


def real_workflow(folder: Path, model: Path) -> Path:
    """A copy of the workflow, no link, with the tiny study in its configuration; its folder."""
    folder.mkdir(parents=True)
    make_study(folder, model)
    for path in [*folder.iterdir(), *(folder / "config").iterdir()]:
        if path.is_symlink():
            origin = path.resolve()
            path.unlink()
            if origin.is_dir():
                shutil.copytree(origin, path, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(origin, path)
    return folder


# Where it is run.


def test_from_another_folder_and_with_spaces_in_every_path_the_study_is_the_same(finished, tmp_path, tiny_model):
    workflow = real_workflow(tmp_path / "the work flow", tiny_model)
    shutil.copytree(tiny_model, tmp_path / "the model")
    change(workflow, lambda config: config["models"]["tiny"].update(source=f"file:{tmp_path / 'the model'}"))
    elsewhere = tmp_path / "some where else"
    elsewhere.mkdir()
    command = ("snakemake", "--cores", "2", "-s", workflow / "Snakefile", "--configfile", workflow / "config/tiny.yaml")
    run(*command, cwd=elsewhere)
    assert nothing_to_do(run(*command, "-n", cwd=elsewhere))
    assert not (workflow / "results").exists() and not (workflow / "logs").exists()
    # Keys know nothing of places; only what names the model's source differs.
    named = ("listing/configuration", "listing/sources", "summarise", "page")
    expected, found = (
        {
            name
            for name in contents(folder)
            if not name.startswith((*(f"results/store/{one}" for one in named), "results/tiny"))
        }
        for folder in (finished[0], elsewhere)
    )
    assert found == expected and len(expected) > 100
    assert_same_tables(finished[0], elsewhere)


def assert_same_tables(folder: Path, other: Path) -> None:
    for name in ("accuracy", "comparisons", "pairs", "solving"):
        here, there = ((place / f"results/tiny/tables/{name}.csv").read_bytes() for place in (folder, other))
        assert here == there, name


@pytest.mark.parametrize("there", ["else where", "results within/deep"])
def test_directory_names_another_place_for_results(finished, fresh, tmp_path_factory, there):
    folder, _, _ = fresh
    elsewhere = tmp_path_factory.mktemp("place") / there
    arguments = ("--directory", elsewhere, *CONFIGURED, "--cores", "2")
    # The study's local files are found beside the workflow, the results are those of the place.
    run("snakemake", *arguments, target(folder, "demonstrate/oracle/boxes"), cwd=folder)
    assert not (folder / "results/store").exists() or not list(folder.glob("results/store/[a-z]*"))
    made = {"demonstrate/oracle/boxes", "teach/oracle/boxes-train-cot", "prepare/boxes-train", "prepare/boxes-test"}
    for place in (*made, "fetch/boxes-all"):
        here, found = artifact(finished[0], place), artifact(elsewhere, place)
        assert found.relative_to(elsewhere) == here.relative_to(finished[0])
        for path in here.iterdir():
            assert path.name == "record.json" or (found / path.name).read_bytes() == path.read_bytes()
    shutil.copytree(finished[0] / "results", elsewhere / "results", symlinks=True, dirs_exist_ok=True)
    assert nothing_to_do(run("snakemake", *arguments, "-n", cwd=folder))


HOST = """
import yaml
from snakemake.utils import update_config

OWN = {{}}
for name in ("benchmarks", "recipes", "tiny"):
    update_config(OWN, yaml.safe_load(open(f"{workflow}/config/{{name}}.yaml")))
update_config(OWN, config.get("study", {{}}))

module study:
    snakefile: "{workflow}/Snakefile"
    config: OWN

use rule * from study as study_*

rule whole:
    default_target: True
    input:
        rules.study_all.input,
        "mine.txt",

rule mine:
    input:
        "given.txt",
    output:
        "mine.txt",
    params:
        word=config.get("word", "first"),
    shell:
        "cat {{input}} > {{output}}; echo {{params.word}} >> {{output}}; echo >> ran.txt"
"""


@pytest.fixture
def host(tmp_path, tiny_model) -> Path:
    """A workflow of its own that includes this one, without this one's profile."""
    workflow = real_workflow(tmp_path / "workflow", tiny_model)
    change(workflow, lambda config: config["study"].update(arms=["baseline"], evaluate=["boxes"]))
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "Snakefile").write_text(HOST.format(workflow=workflow))
    (folder / "given.txt").write_text("given\n")
    return folder


def test_as_a_module_it_leaves_the_hosts_own_rules_as_they_are(host):
    command = ("snakemake", "--cores", "2")
    run(*command, cwd=host)
    assert (host / "mine.txt").read_text() == "given\nfirst\n"
    assert "# Summary of the study" in (host / "results/tiny/summary.md").read_text()
    assert nothing_to_do(run(*command, "-n", cwd=host))
    before = states(host)
    # Snakemake's own reasons hold for the host's rule: another parameter or input, a changed rule, an output gone.
    assert planned_rules(run(*command, "-n", "--config", "word=second", cwd=host)) == {"mine": 1, "whole": 1}
    (host / "given.txt").write_text("given anew\n")
    assert planned_rules(run(*command, "-n", cwd=host)) == {"mine": 1, "whole": 1}
    run(*command, cwd=host)
    assert nothing_to_do(run(*command, "-n", cwd=host))
    snakefile = host / "Snakefile"
    snakefile.write_text(snakefile.read_text().replace("echo >> ran.txt", "echo again >> ran.txt"))
    assert planned_rules(run(*command, "-n", cwd=host)) == {"mine": 1, "whole": 1}
    run(*command, cwd=host)
    (host / "mine.txt").unlink()
    assert planned_rules(run(*command, "-n", cwd=host)) == {"mine": 1, "whole": 1}
    run(*command, cwd=host)
    assert (host / "ran.txt").read_text() == "\n\nagain\nagain\n"
    # And none of them for the study's: no time, no note.
    for path in host.glob("results/store/fetch*/**/record.json"):
        os.utime(path)
    shutil.rmtree(host / ".snakemake")
    assert nothing_to_do(run(*command, "-n", cwd=host))
    assert states(host) == before


def test_as_a_module_it_makes_what_a_changed_setting_asks_for(host):
    command = ("snakemake", "--cores", "2")
    run(*command, cwd=host)
    planned = planned_rules(run(*command, "-n", "--config", "study={statistics: {level: 0.9}}", cwd=host))
    assert planned.pop("whole") == 1
    assert {rule.removeprefix("study_") for rule in planned} == {
        "configuration",
        "listing",
        "tables",
        "claims",
        "flips",
        "summarise",
        "page",
        "plot",
        "layout",
        "show",
    }
    assert all(rule.startswith("study_") for rule in planned)


@pytest.fixture
def disk():
    """A folder on another disk than the tests'."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == os.stat(tempfile.gettempdir()).st_dev:
        pytest.skip("no second disk is at hand")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_results_may_lie_on_another_disk(finished, fresh, disk):
    folder, _, _ = fresh
    (folder / "results").symlink_to(disk)
    snakemake(folder)
    assert nothing_to_do(snakemake(folder, "-n"))
    assert_same_results(finished[0], folder)
    assert (disk / "tiny/summary.md").read_text() == (folder / "results/tiny/summary.md").read_text()
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", cwd=folder).stdout
    assert "every artifact is what" in run("python", "scripts/study.py", "verify", cwd=folder).stdout


# What it keeps and shows.


def test_nothing_hangs_on_snakemakes_own_notes(copy):
    before = states(copy)
    shutil.rmtree(copy / ".snakemake")
    for path in copy.glob("results/store/**/*"):
        if path.is_file():
            os.utime(path, (1e9 + hash(path.name) % 10**8,) * 2)
    assert nothing_to_do(snakemake(copy, "-n"))
    assert nothing_to_do(snakemake(copy))
    assert states(copy) == before


def test_a_setting_changed_and_changed_back_costs_the_names_alone(copy):
    before = states(copy)
    shown = {path: os.readlink(path) for path in copy.glob("results/tiny/**/*.*") if path.is_symlink()}
    change(copy, lambda config: config.update(statistics={"margin": 5, "level": 0.9}))
    planned = planned_rules(snakemake(copy, "-n"))
    assert {*planned} == {"configuration", "listing", *FINALS}
    snakemake(copy)
    assert any(os.readlink(path) != target for path, target in shown.items())
    assert {name: state for name, state in states(copy).items() if name in before} == before
    change(copy, lambda config: config.update(statistics={"margin": 5}))
    assert planned_rules(snakemake(copy, "-n")) == {"show": 1}
    snakemake(copy)
    assert {path: os.readlink(path) for path in copy.glob("results/tiny/**/*.*") if path.is_symlink()} == shown
    assert nothing_to_do(snakemake(copy, "-n"))


def test_two_studies_in_one_folder_share_and_leave_each_other_alone(copy):
    config = yaml.safe_load((copy / "config/tiny.yaml").read_text())
    config["study"] |= {"name": "other", "arms": ["baseline", "instruct"]}
    (copy / "config/other.yaml").write_text(yaml.safe_dump(config))
    other = ("snakemake", "--cores", "2", "--configfile", "config/other.yaml")
    before = states(copy)
    planned = planned_rules(run(*other, "-n", cwd=copy))
    assert {*planned} == {"configuration", "listing", *FINALS}
    run(*other, cwd=copy)
    assert nothing_to_do(run(*other, "-n", cwd=copy)) and nothing_to_do(snakemake(copy, "-n"))
    assert {name: state for name, state in states(copy).items() if name in before} == before
    assert (copy / "results/other/summary.md").exists() and (copy / "results/tiny/summary.md").exists()


def test_a_name_that_is_gone_is_laid_out_again(copy):
    (copy / "results/tiny/tables/accuracy.csv").unlink()
    assert planned_rules(snakemake(copy, "-n")) == {"show": 1}
    snakemake(copy)
    assert (copy / "results/tiny/tables/accuracy.csv").exists()
    assert nothing_to_do(snakemake(copy, "-n"))


def test_a_file_behind_a_name_that_is_gone_is_named(copy):
    missing = artifact(copy, "layout/yields") / "yields.tex"
    missing.unlink()
    outcome = snakemake(copy, check=False)
    assert outcome.returncode == 1
    assert f"error: {missing.relative_to(copy)}: no such file" in outcome.stdout + outcome.stderr
    assert "study.py verify --set-aside" in outcome.stdout + outcome.stderr
    run("python", "scripts/study.py", "verify", "--set-aside", cwd=copy)
    assert planned_rules(snakemake(copy, "-n")) == {"layout": 1, "show": 1}
    snakemake(copy)
    assert missing.exists() and nothing_to_do(snakemake(copy, "-n"))


def test_a_stale_path_is_refused_with_the_key_of_today(copy):
    place = f"results/store/evaluate/{INSTRUCTED}/boxes"
    outcome = snakemake(copy, f"{place}/{'0' * 12}/record.json", check=False)
    key = artifact(copy, f"evaluate/{INSTRUCTED}/boxes").name
    assert outcome.returncode == 1
    said = outcome.stdout + outcome.stderr
    assert f"{place}/{'0' * 12}: in this configuration its key is {key}" in said


# What Snakemake's options do.


def test_forced_jobs_end_at_once_and_change_nothing(copy):
    before = states(copy)
    for force, rules in (
        (("--forcerun", "evaluate"), {"evaluate": 6}),
        (("--forcerun", "tables"), {"tables": 1}),
    ):
        planned = planned_rules(snakemake(copy, "-n", *force))
        assert {rule: planned[rule] for rule in rules} == rules, planned
        assert {*planned} <= {*rules, *FINALS}
        snakemake(copy, *force)
        assert states(copy) == before
        assert nothing_to_do(snakemake(copy, "-n"))


def test_forcing_all_jobs_makes_nothing_anew(copy):
    before = contents(copy)
    planned = planned_rules(snakemake(copy, "-n", "-F"))
    assert planned["evaluate"] == 6 and planned["instruct"] == planned["refine"] == planned["fetch_model"] == 1
    begun = {path: path.stat().st_ino for path in copy.glob("results/store/**/*.safetensors")}
    snakemake(copy, "-F")
    assert contents(copy) == before
    assert {path: path.stat().st_ino for path in begun} == begun
    assert nothing_to_do(snakemake(copy, "-n"))


def test_until_stops_where_it_is_told(fresh):
    folder, _, _ = fresh
    snakemake(folder, "--until", "demonstrate")
    made = {path.relative_to(folder / "results/store").parts[0] for path in folder.glob("results/store/**/record.json")}
    # The students' model is checked before a teacher is asked.
    assert made == {"fetch", "fetch_model", "prepare", "teach", "demonstrate"}
    assert not (folder / "results/tiny").exists()
    planned = planned_rules(snakemake(folder, "-n", "--until", "instruct"))
    assert planned == {"instruct": 1}
    omitted = planned_rules(snakemake(folder, "-n", "--omit-from", "sample"))
    assert omitted["instruct"] == 1 and "sample" not in omitted and "refine" not in omitted


def test_touch_makes_nothing_and_loses_nothing(copy):
    shutil.rmtree(artifact(copy, "plot/cost"))
    (artifact(copy, f"evaluate/{INSTRUCTED}/far") / "record.json").unlink()
    before = contents(copy)
    snakemake(copy, "--touch", check=False)
    assert contents(copy) == before
    assert planned_rules(snakemake(copy, "-n")) == {"plot": 1, "show": 1}


def test_summaries_name_every_artifact_that_is_asked_for(copy):
    before = states(copy)
    for option in ("--summary", "--detailed-summary"):
        rows = [line.split("\t") for line in snakemake(copy, option).stdout.splitlines()]
        header, *rows = [row for row in rows if len(row) > 3]
        listed = {row[header.index("output_file")]: row[header.index("status")] for row in rows}
        plans = {row[header.index("plan")] for row in rows}
        assert f"results/store/refine/{INSTRUCTED}/boxes-cot-round1" in {name.rsplit("/", 2)[0] for name in listed}
        assert set(listed.values()) == {"ok"} and plans == {"no update"}, listed
    assert states(copy) == before


def test_all_output_can_be_deleted_and_made_again(finished, copy):
    snakemake(copy, "--delete-all-output")
    assert not list(copy.glob("results/store/**/record.json")) and not list(copy.glob("results/tiny/.shown/*"))
    assert not (copy / "results/tiny/summary.md").exists()
    assert not list(copy.glob("results/store/refine/**/adapter_model.safetensors"))
    planned = planned_rules(snakemake(copy, "-n"))
    assert planned["instruct"] == planned["refine"] == planned["fetch_model"] == 1 and planned["evaluate"] == 6
    snakemake(copy)
    assert_same_results(finished[0], copy)


@pytest.mark.parametrize("notes", [True, False])
def test_the_report_has_every_result(copy, notes):
    if not notes:
        shutil.rmtree(copy / ".snakemake")
    snakemake(copy, "--report", "report.html")
    text = (copy / "report.html").read_text()
    for category in ("Configuration", "Tables", "Figures", "Summary", "Claims", "Page"):
        assert f'"{category}"' in text, category
    names = (
        "configuration.yaml",
        "sources.csv",
        "accuracy.csv",
        "accuracy.svg",
        "cost.svg",
        "teachers.md",
        "claims.md",
    )
    for name in (*names, "summary.md", "index.html"):
        assert name in text, name
    assert "Accuracy of every checkpoint on every benchmark" in text


def test_settings_on_the_command_line_are_those_of_a_file(copy):
    planned = planned_rules(snakemake(copy, "-n", "--config", "study={seeds: [0, 1]}"))
    trained = dict.fromkeys(("instruct", "sample", "pair", "refine"), 1)
    assert {rule: planned.get(rule) for rule in (*trained, "evaluate")} == trained | {"evaluate": 4}
    assert not {"fetch", "fetch_model", "prepare", "ask", "demonstrate", "export_task"} & {*planned}
    change(copy, lambda config: config["study"].update(seeds=[0, 1]))
    assert planned_rules(snakemake(copy, "-n")) == planned


def test_settings_on_the_command_line_change_the_study_that_ships(tmp_path):
    for name in ("Snakefile", "rules", "scripts", "report", "envs", "profiles", "config"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    one, two = (
        planned_rules(run("snakemake", "-n", *more, cwd=tmp_path))
        for more in ((), ("--config", "study={seeds: [0, 1]}"))
    )
    assert (one["instruct"], two["instruct"]) == (1, 2)
    assert two["evaluate"] == one["evaluate"] + 2 * 3


def test_other_reasons_to_run_find_none(copy):
    triggers = ("--rerun-triggers", "code", "input", "mtime", "params", "software-env")
    assert nothing_to_do(snakemake(copy, "-n", *triggers))
    shutil.rmtree(copy / ".snakemake")
    assert nothing_to_do(snakemake(copy, "-n", *triggers))


def test_other_reasons_find_none_in_a_further_benchmark(copy):
    """One of those that a load of weights is shared for."""

    def add(config: dict) -> None:
        config["benchmarks"]["near"] = json.loads(json.dumps(config["benchmarks"]["far"]))
        config["benchmarks"]["near"]["splits"]["test"]["size"] = 14
        config["benchmarks"]["near"]["title"] = "Near"
        config["study"]["evaluate"].append("near")

    triggers = ("--rerun-triggers", "code", "input", "mtime", "params", "software-env")
    change(copy, add)
    planned = planned_rules(snakemake(copy, "-n"))
    # The training split is held apart from it, too, so what follows from that has another key.
    assert planned["evaluate"] == 7 and planned["sample"] == 1
    assert planned_rules(snakemake(copy, "-n", *triggers)) == planned


def test_a_schedule_of_twenty_rounds_is_planned(fresh):
    folder, _, _ = fresh
    schedule = {"long": {"steps": ["cot"], "rounds": 20}}
    change(folder, lambda config: config.update(schedules=schedule))
    change(folder, lambda config: config["study"].update(recipes=["long"]))
    outcome = snakemake(folder, "-n")
    planned = planned_rules(outcome)
    assert [planned[rule] for rule in ("instruct", "sample", "pair", "refine", "evaluate")] == [1, 20, 20, 20, 6]
    paths = re.findall(r"results/store/\S+?/record\.json", outcome.stdout)
    assert max(map(len, paths)) < 140 and all(len(part) < 64 for path in paths for part in path.split("/"))


def test_several_targets_are_all_made(copy):
    """A missing artifact that one target needs, another missing one that no target but itself needs, and finals."""
    places = (
        f"pair/{INSTRUCTED}/boxes-cot-100-seed0",
        f"evaluate/{INSTRUCTED}/far",
        "plot/accuracy",
        "prepare/boxes-train",
    )
    targets = [target(copy, place) for place in places]
    for place in places:
        shutil.rmtree(artifact(copy, place))
    planned = planned_rules(snakemake(copy, "-n", *targets, "all"))
    assert planned == {"pair": 1, "evaluate": 1, "plot": 1, "prepare": 1, "show": 1}
    snakemake(copy, *targets, "all")
    assert all((copy / path).exists() for path in targets)
    assert nothing_to_do(snakemake(copy, "-n", *targets, "all"))
