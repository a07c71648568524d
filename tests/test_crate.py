import datetime
import json
import shutil
import zipfile
from urllib.parse import unquote

import pytest

import show
from conftest import REPOSITORY, run
from selfrefine.schema.record import Record
from selfrefine.store.files import write_json
from selfrefine.store.hashing import sha256_of, sha256_of_bytes
from selfrefine.store.provenance import record_of, state_of

METADATA = "ro-crate-metadata.json"
CODE = "0123456789abcdef"
KEY = "0123456789ab"
LATEST = f"results/store/refine/tiny/1/{KEY}/adapter_model.safetensors"


def failures(found: set[tuple[str, str]]) -> set[str]:
    return {message for severity, message in found if severity == "REQUIRED"}


def write(root, path: str, content: str):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def job(root, stage: str, inputs: list[str], outputs: list[str], settings: dict, hour: int) -> None:
    """Plants the outputs of a job and its record."""
    for path in outputs:
        write(root, path, f"{path} by {stage}\n")
    record = Record(
        stage=stage,
        inputs={path: state_of(root / path) for path in inputs},
        outputs={path: state_of(root / path) for path in outputs},
        settings=settings,
        seed=settings.get("seed"),
        code=CODE,
        version="version 1",
        command="",
        content="",
        figures={},
        packages={"python": "3.11.7", "torch": "2.13.0+cpu", "snakemake": "9.27.1"},
        machine={"system": "Linux", "cores": 2},
        started=datetime.datetime(2026, 1, 2, hour, tzinfo=datetime.UTC),
        wall_seconds=90.5,
        peak_memory_mib=33,
    )
    write_json(record_of(root / outputs[0]), record.model_dump(mode="json"))


@pytest.fixture
def study(tmp_path):
    """A small finished study, by hand."""
    root = tmp_path / "study"
    for path in ("Snakefile", "README.md", "rules/train.smk", "envs/requirements.txt", "my questions.jsonl"):
        write(root, path, f"# {path}\n")
    for path in ("rules/__pycache__/a.pyc", "results/store/.running", "logs/refine.log", ".snakemake/notes"):
        write(root, path, "of no interest\n")
    for name in ("notes.txt", "set-aside/20260101-000000/refine/tiny/0/record.json", "tiny/.shown/x.0"):
        write(root, f"results/{name}", "{}\n")
    kept = {"script": "scripts/refine.py", "files": {"scripts/refine.py": '"""Refines a student.\n\nMore."""\n'}}
    write_json(root / f"results/store/code/{CODE}.json", kept)
    configuration, index, tables, claims = (
        f"results/store/{name}"
        for name in (
            f"listing/configuration/{KEY}/configuration.yaml",
            f"listing/tables/{KEY}/tables.json",
            f"tables/{KEY}/arms.csv",
            f"claims/{KEY}/claims.md",
        )
    )
    job(root, "listing", [], [configuration], {"text": "c" * 64}, 1)
    job(root, "listing", [], [index], {"text": "t" * 64}, 1)
    questions = f"results/store/fetch/boxes-all/{KEY}/raw.jsonl"
    job(root, "fetch", ["my questions.jsonl"], [questions], {"source": "file:my questions.jsonl", "parts": 1}, 1)
    for seed in (0, 1):
        folder = f"results/store/refine/tiny/{seed}/{KEY}"
        outputs = [f"{folder}/training.jsonl", f"{folder}/adapter_model.safetensors"]
        settings = {"seed": seed, "share": 50.5, "system": None, "quiet": True, "training": {"epochs": 2}}
        job(root, "refine", [questions], outputs, settings, 2 + seed)
    job(root, "tables", [index, LATEST], [tables], {}, 4)
    job(root, "claims", [index], [claims], {}, 3)
    named = {"configuration.yaml": configuration, "tables/arms.csv": tables, "claims.md": claims}
    show.lay_out(root / "results/tiny", {name: root / path for name, path in named.items()})
    return root


def crate(root, *options, check=True):
    command = ["python", "scripts/study.py", "crate", "--results", root / "results", "--license", "CC-BY-4.0"]
    return run(*command, *options, check=check)


def entities(metadata: str) -> dict[str, dict]:
    found = json.loads(metadata)["@graph"]
    by_identifier = {entity["@id"]: entity for entity in found}
    assert len(by_identifier) == len(found)
    return by_identifier


def targets(value) -> list[str]:
    """The identifiers that a property refers to."""
    return [entity["@id"] for entity in (value if isinstance(value, list) else [value])]


def of_kind(found: dict[str, dict], kind: str) -> dict[str, dict]:
    return {name: entity for name, entity in found.items() if entity["@type"] == kind}


def files_in(root) -> set[str]:
    paths = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    left_out = ("logs/", ".", "results/set-aside/")
    return {path for path in paths if not path.startswith(left_out) and "/." not in path and "pycache" not in path}


def test_the_crate_conforms_to_the_profile(study, profile_issues):
    crate(study, "--author", "Ada Example <https://orcid.org/0000-0002-1825-0097>")
    # Without a citation, nobody publishes it, and a program of this repository has no address on the web.
    assert profile_issues(study) == {
        ("RECOMMENDED", "The SoftwareApplication id SHOULD be an absolute URI"),
        ("RECOMMENDED", "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`"),
        ("RECOMMENDED", "The author SHOULD have an organizational affiliation."),
        (
            "RECOMMENDED",
            "The author SHOULD have a Contextual Entity which specifies the organizational `affiliation`.",
        ),
    }


CITED = """
authors:
  - given-names: Ada
    family-names: Example
    orcid: "https://orcid.org/0000-0002-1825-0097"
    affiliation: Example University
  - name: Example University
    website: "https://example.org"
repository-code: "https://example.org/workflow"
"""


@pytest.mark.parametrize("options", [[], ["--citation", "mine.cff"], ["--author", "Ada Example"]])
def test_what_a_citation_names_leaves_nothing_to_recommend_but_one(study, profile_issues, options):
    citation = study / ("mine.cff" if "--citation" in options else "CITATION.cff")
    write(study, citation.name, CITED)
    crate(study, *(str(citation) if option == "mine.cff" else option for option in options))
    # The validator asks it of the Snakefile too, which the profile wants to be a file of the crate.
    assert profile_issues(study) == {("RECOMMENDED", "The SoftwareApplication id SHOULD be an absolute URI")}
    found = entities((study / METADATA).read_text())
    ada, home = "https://orcid.org/0000-0002-1825-0097", "https://example.org"
    if "--author" in options:
        ada = "#Ada%20Example"
    assert targets(found["./"]["author"])[0] == ada and found["./"]["publisher"] == {"@id": home}
    assert found[ada]["affiliation"] == {"@id": home} and found[home]["@type"] == "Organization"
    for action in of_kind(found, "CreateAction").values():
        assert action["agent"] == {"@id": ada}
    programs = {name for action in of_kind(found, "CreateAction").values() for name in targets(action["instrument"])}
    assert all(name.startswith("https://example.org/workflow#tool/") for name in programs - {"Snakefile"})
    applications = of_kind(found, "SoftwareApplication")
    assert programs - {"Snakefile"} <= set(applications) and all(name.startswith("http") for name in applications)


def test_the_shipped_citation_can_be_read(study, profile_issues):
    shutil.copy(REPOSITORY / "CITATION.cff", study)
    crate(study)
    assert not failures(profile_issues(study))
    found = entities((study / METADATA).read_text())
    assert found[found["./"]["publisher"]["@id"]]["name"].startswith("The maintainers of ")


@pytest.mark.parametrize(
    ("text", "said"),
    [("authors: [", "not a citation"), ("title: x", "not a citation"), ("authors: [{}]", "an author has neither")],
)
def test_a_citation_that_cannot_be_read_is_said(study, text, said):
    write(study, "CITATION.cff", text)
    outcome = crate(study, check=False)
    assert outcome.returncode and "CITATION.cff: " in outcome.stderr and said in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("kind", "name", "fault"),
    [
        ("CreateAction", "instrument", "The Action MUST have an instrument property that references the executed tool"),
        ("HowToStep", "workExample", "A HowToStep must refer to its corresponding tool via workExample"),
        ("Dataset", "license", "The Crate (Root Data Entity) must specify a license"),
    ],
)
def test_a_crate_that_lacks_what_the_profile_requires_fails(study, profile_issues, kind, name, fault):
    crate(study)
    metadata = json.loads((study / METADATA).read_text())
    next(entity for entity in metadata["@graph"] if entity["@type"] == kind).pop(name)
    write_json(study / METADATA, metadata)
    assert any(message.startswith(fault) for message in failures(profile_issues(study)))


def test_a_crate_without_one_of_its_files_fails(study, profile_issues):
    crate(study)
    (study / LATEST).unlink()
    assert failures(profile_issues(study)) == {
        f"The RO-Crate does not include the Data Entity '{LATEST}' as part of its payload"
    }


def test_every_record_is_an_action_and_every_file_is_listed_once(study):
    crate(study)
    found = entities((study / METADATA).read_text())
    listed = targets(found["./"]["hasPart"])
    assert len(listed) == len(set(listed))
    assert {unquote(path) for path in listed} == files_in(study) - {METADATA}
    actions = of_kind(found, "CreateAction")
    for path in files_in(study):
        if path.endswith("record.json"):
            record = Record.model_validate_json((study / path).read_text())
            action = actions.pop(found[path]["about"]["@id"])
            assert {unquote(name) for name in targets(action["result"])} == set(record.outputs)
            assert set(record.inputs) <= {unquote(name) for name in targets(action["object"])}
            assert action["startTime"] == f"{record.started:%Y-%m-%dT%H:%M:%S}.000+00:00"
            assert action["endTime"] == f"{record.started:%Y-%m-%dT%H}:01:30.500+00:00"
            assert action["@id"] in targets(found["./"]["mentions"])
    (workflow,) = actions.values()
    assert workflow["instrument"] == {"@id": "Snakefile"}
    assert targets(workflow["object"]) == ["results/tiny/configuration.yaml", "my%20questions.jsonl"]
    assert targets(workflow["result"]) == ["results/tiny/claims.md", "results/tiny/tables/arms.csv"]
    assert (workflow["startTime"][11:13], workflow["endTime"][11:13]) == ("01", "04")


def test_jobs_share_their_program_and_their_settings(study):
    crate(study)
    found = entities((study / METADATA).read_text())
    first, second = (action for action in of_kind(found, "CreateAction").values() if "refine" in action["name"])
    assert first["instrument"] == second["instrument"]
    program = found[first["instrument"]["@id"]]
    assert (program["name"], program["softwareVersion"]) == ("scripts/refine.py", CODE)
    assert program["url"] == {"@id": f"results/store/code/{CODE}.json"}
    needs = {found[name]["name"]: found[name]["softwareVersion"] for name in targets(program["softwareRequirements"])}
    assert needs == {"python": "3.11.7", "torch": "2.13.0+cpu", "snakemake": "9.27.1"}

    def settings(action):
        values = [found[name] for name in targets(action["object"]) if found[name]["@type"] == "PropertyValue"]
        return {
            value["name"]: (value["value"], found[value["exampleOfWork"]["@id"]]["additionalType"]) for value in values
        }

    shared = {
        "share": (50.5, "Float"),
        "quiet": (True, "Boolean"),
        "training": ('{"epochs":2}', "PropertyValue"),
    }
    assert settings(first) == shared | {"seed": (0, "Integer")}
    assert settings(second) == shared | {"seed": (1, "Integer")}
    assert len(of_kind(found, "PropertyValue")) == 2 + 2 + 3 + 2 + 7  # listing; fetch; refine, shared and not; memory


def test_an_archive_holds_the_tree_and_can_be_checked_anywhere(study, profile_issues, tmp_path):
    crate(study, "--archive", tmp_path / "study.zip")
    before = {path: sha256_of(study / path) for path in files_in(study)}
    assert METADATA not in before
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        found = entities(archive.read(METADATA).decode())
        held = {name: archive.read(name) for name in archive.namelist() if name != METADATA}
        archive.extractall(tmp_path / "elsewhere")
    assert {name: sha256_of_bytes(content) for name, content in held.items()} == before
    said = {unquote(name): entity for name, entity in found.items() if "File" in entity["@type"]}
    assert {name: entity["sha256"] for name, entity in said.items()} == before
    assert {name: entity["contentSize"] for name, entity in said.items()} == {
        name: str(len(content)) for name, content in held.items()
    }
    shutil.rmtree(study)
    assert not failures(profile_issues(tmp_path / "elsewhere"))
    again = crate(tmp_path / "elsewhere")
    assert "0 more by size and sha256 alone" in again.stdout


def test_weights_left_out_are_still_told_of(study, profile_issues, tmp_path):
    crate(study, "--archive", tmp_path / "study.zip", "--without-weights")
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        assert set(archive.namelist()) == {METADATA} | {
            path for path in files_in(study) if not path.endswith(".safetensors")
        }
        found = entities(archive.read(METADATA).decode())
    absent = {entity["alternateName"]: entity for entity in found.values() if "alternateName" in entity}
    assert {path.rsplit("/", 1)[1] for path in absent} == {"adapter_model.safetensors"} and len(absent) == 2
    weights = absent[LATEST]
    assert (weights["sha256"], weights["contentSize"]) == (
        sha256_of(study / LATEST),
        str((study / LATEST).stat().st_size),
    )
    assert weights["@id"].startswith("#") and weights["@id"] not in targets(found["./"]["hasPart"])
    assert any(weights["@id"] in targets(action["result"]) for action in of_kind(found, "CreateAction").values())
    assert not failures(profile_issues(tmp_path / "study.zip"))


def test_a_file_that_has_changed_since_a_job_read_it_is_not_taken_for_what_was_read(study):
    read = state_of(study / "my questions.jsonl")
    write(study, "my questions.jsonl", "others\n")
    assert "1 more by size and sha256 alone" in crate(study).stdout
    found = entities((study / METADATA).read_text())
    (fetched,) = (action for action in of_kind(found, "CreateAction").values() if action["name"].startswith("fetch"))
    (source,) = (found[name] for name in targets(fetched["object"]) if found[name]["@type"] == "File")
    assert (source["alternateName"], source["sha256"]) == ("my questions.jsonl", read.sha256)
    assert found["my%20questions.jsonl"]["sha256"] != read.sha256


def unrecorded(root):
    for path in root.rglob("record.json"):
        path.unlink()


def cut_short(root):
    (root / LATEST).write_text("cut")


def alone(root):
    (root / "Snakefile").unlink()


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (unrecorded, [], "holds no record of a job; run snakemake first"),
        (cut_short, [], f"{LATEST} has 3 bytes, its record says"),
        (alone, [], "holds no Snakefile; --results names"),
        (lambda root: None, ["--results", "nowhere"], "holds no record of a job"),
        (lambda root: None, ["--license", "free for all"], "'free for all' is no SPDX identifier"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(study, spoil, options, said):
    spoil(study)
    outcome = crate(study, *options, check=False)
    assert outcome.returncode and said in outcome.stderr and "Traceback" not in outcome.stderr
    assert not (study / METADATA).exists()


def test_an_archive_is_not_written_into_what_it_holds(study):
    outcome = crate(study, "--archive", study / "results/study.zip", check=False)
    assert outcome.returncode and "write it elsewhere" in outcome.stderr


def test_results_under_another_name_are_refused(study):
    (study / "results").rename(study / "renamed")
    outcome = crate(study, "--results", study / "renamed", check=False)
    assert outcome.returncode and "give the folder that name back" in outcome.stderr
