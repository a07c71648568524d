"""What `study.py` says of a store and does to it: why, verify, prune, adopt, on planted artifacts.

Everything happens twice: in a plain folder, and in one with spaces in its name whose results lie on another disk.
"""

import collections
import contextlib
import datetime
import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import show
import study as program
from conftest import REPOSITORY, make_study, run, snakemake
from selfrefine.audit.upkeep import damaged, set_aside, unneeded
from selfrefine.audit.why import why
from selfrefine.errors import UserError
from selfrefine.schema.record import Record
from selfrefine.store import provenance, versions
from selfrefine.store.commands import commands_of
from selfrefine.store.files import read_json, write_json
from selfrefine.store.fingerprint import Code, fingerprint, fingerprint_of, read_code, snapshot
from selfrefine.store.hashing import KnownHashes, sha256_of
from selfrefine.store.locations import FILES, HASHES, STORE, TRAINING
from selfrefine.store.locks import occupy, stamp_of
from selfrefine.store.provenance import checked, read_record, state_of
from selfrefine.store.reuse import content_of_record
from selfrefine.store.run import Run
from selfrefine.study.artifact import Artifact
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.open_study import finals_of, open_study, read_configuration

TINY = Path("config/tiny.yaml")
RESULTS = Path("results")
# The files of artifacts whose readers read all of them, or none.
MORE = {
    "fetch": ["raw.jsonl"],
    "fetch_model": ["config.json", "model.safetensors"],
    "instruct": [TRAINING, "adapter_model.safetensors"],
    "refine": [TRAINING, "adapter_model.safetensors"],
    "export_task": ["answers.py", "docs.jsonl", "task.yaml"],
    "evaluate": ["samples.jsonl", "report.json"],
}


def begun(place: Path) -> Path:
    """The folder of a study before its first run."""
    (place / "model").mkdir(parents=True)
    for name in MORE["fetch_model"]:
        (place / "model" / name).write_text(f"{name}\n")
    make_study(place, Path("model"))
    return place


@pytest.fixture(params=["plain", "linked"])
def folder(request, tmp_path, monkeypatch) -> Path:
    """A study before its first run, in the working directory."""
    place = begun(tmp_path / ("study" if request.param == "plain" else "a study with spaces"))
    if request.param == "linked":
        (tmp_path / "another disk" / "of results").mkdir(parents=True)
        (place / "results").symlink_to("../another disk/of results")
    monkeypatch.chdir(place)
    return place


def configure(changes: dict, name: str = "tiny") -> Path:
    """A configuration file: the tiny study's with some keys changed, as `snakemake --configfile` would merge them."""

    def merged(known, more):
        if isinstance(known, dict) and isinstance(more, dict):
            return known | {key: merged(known.get(key), value) for key, value in more.items()}
        return more

    path = TINY.with_stem(name)
    path.write_text(yaml.safe_dump(merged(yaml.safe_load(TINY.read_text()), changes), sort_keys=False))
    return path


def plant(finals: FinalArtifacts, code: dict[str, str] | None = None) -> FinalArtifacts:
    """Makes every missing artifact of a study, with planted contents; `code` are fingerprints of stages' code."""
    for one in finals.behind_all():
        if not one.record.exists():
            plant_one(finals, one, (code or {}).get(one.stage, "0" * 16))
    marker = Path(finals.shown())
    show.lay_out(
        marker.parent.parent, {finals.name_of(one, file): file for one in finals.all() for file in finals.files(one)}
    )
    marker.parent.mkdir(parents=True, exist_ok=True)
    for path in marker.parent.iterdir():
        path.unlink()
    marker.write_text("")
    return finals


def plant_one(finals: FinalArtifacts, one: Artifact, code: str) -> None:
    if one.stage in ("tables", "plot", "layout", "claims", "flips", "summarise", "listing"):
        files = finals.files(one)
    else:
        files = [one.folder / name for name in MORE.get(one.stage) or [FILES[one.stage]]]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            finals.listings.text(*one.names) if one.stage == "listing" else f"{path.name} of {one.stage} {one.names}\n"
        )
    before = [each for inputs in one.inputs.values() for each in inputs]
    read = [Path(name) for each in before for name in read_record(each.record).outputs]
    read += [each.record for each in before if one.stage == "tables" and each.stage != "listing"]
    record = Record(
        stage=one.stage,
        inputs={str(path): state_of(path) for path in [*read, *(Path(path) for path, _ in one.sources)]},
        outputs={str(path): state_of(path) for path in files},
        settings=one.settings,
        seed=None,
        code=code,
        version=one.code,
        command=one.command,
        content="",
        figures={},
        packages={},
        machine={},
        started=datetime.datetime.fromisoformat("2026-03-01T00:00:00Z"),
        wall_seconds=1,
        peak_memory_mib=1,
    )
    record.content = content_of_record(record)
    write_json(one.record, record.model_dump(mode="json"))


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The results of the tiny study."""
    place = begun(tmp_path_factory.mktemp("planted") / "study")
    with contextlib.chdir(place):
        plant(open_study([TINY]))
    return place / "results"


@pytest.fixture
def planted(folder, made) -> FinalArtifacts:
    """The tiny study, made."""
    shutil.copytree(made, RESULTS, symlinks=True, dirs_exist_ok=True)
    return open_study([TINY])


def only(stage: str, *names: str) -> Path:
    """The folder of the one artifact of these names."""
    (found,) = STORE.joinpath(stage, *names).iterdir()
    return found


def said(*arguments, capsys) -> tuple[str, str]:
    """What `study.py` prints in this process, and the line with which it ends ("" if it ends well)."""
    before, sys.argv = sys.argv, ["study.py", *map(str, arguments)]
    try:
        program.main()
        end = ""
    except SystemExit as error:
        end = str(error)
    except UserError as error:
        end = f"error: {error}"
    finally:
        sys.argv = before
    return capsys.readouterr().out, end


# verify


def edit(path: Path, text: str = "edited by hand\n") -> None:
    path.write_text(text)


def reseal(folder: Path) -> None:
    """Makes a record say what its files are now."""
    record = read_record(folder / "record.json")
    outputs = {name: state_of(Path(name)) for name in record.outputs}
    write_json(folder / "record.json", record.model_copy(update={"outputs": outputs}).model_dump(mode="json"))


def remade(folder: Path, text: str) -> None:
    edit(next(path for path in folder.iterdir() if path.name != "record.json"), text)
    reseal(folder)


TRAIN = ("prepare", "boxes-train")
INSTRUCTED = ("instruct", "tiny", "oracle-boxes-100-seed0")
OF_TRAIN = [
    ("teach", "oracle", "boxes-train-cot"),
    INSTRUCTED,
    ("sample", "tiny", "oracle-boxes-100-seed0", "boxes-100-seed0"),
    ("refine", "tiny", "oracle-boxes-100-seed0", "boxes-cot-round1"),
    ("layout", "splits"),
    ("page",),
]


def copy_by_hand() -> None:
    place = only(*TRAIN)
    shutil.copytree(place, place.with_name("0" * 12))


def link_and_edit() -> None:
    """The same file under two artifacts' names, as after reuse, edited in place."""
    here, there = only("summarise") / "summary.md", only("claims") / "claims.md"
    here.unlink()
    os.link(there, here)
    reseal(here.parent)
    with open(here, "r+") as file:
        file.write("X")


def rot() -> None:
    """Bytes that differ though the kept hash of their file says that they do not."""
    path = only("fetch_model", "tiny") / "model.safetensors"
    expected = state_of(path)
    path.write_text(path.read_text().upper())
    state = path.stat()
    known = [str(path), state.st_size, state.st_ctime_ns, expected.sha256]
    path.with_name(HASHES).write_text(json.dumps(known) + "\n")


SIZES = r"items.jsonl has \d+ bytes of sha256 [0-9a-f]{12}, its record says \d+ of [0-9a-f]{12}"
OTHERS = r"was made from another .*items.jsonl than is there now"
# By damage, the artifacts that are listed, each with the words.
DAMAGES = {
    "nothing": (lambda: None, {}),
    "a file edited": (lambda: edit(only(*TRAIN) / "items.jsonl"), {TRAIN: SIZES}),
    "a file edited, of the same size": (
        lambda: edit(only(*TRAIN) / "items.jsonl", (only(*TRAIN) / "items.jsonl").read_text().replace("j", "J")),
        {TRAIN: SIZES},
    ),
    "a file truncated": (lambda: os.truncate(only(*TRAIN) / "items.jsonl", 3), {TRAIN: SIZES}),
    "a file emptied": (lambda: os.truncate(only(*TRAIN) / "items.jsonl", 0), {TRAIN: SIZES}),
    "a file deleted": (lambda: (only(*TRAIN) / "items.jsonl").unlink(), {TRAIN: "items.jsonl is missing$"}),
    "a file touched": (lambda: os.utime(only(*TRAIN) / "items.jsonl", (2e9, 2e9)), {}),
    "a file more": (lambda: edit(only(*TRAIN) / "notes.txt"), {}),
    "two files of one artifact": (
        lambda: (edit(only(*INSTRUCTED) / TRAINING), (only(*INSTRUCTED) / "adapter_model.safetensors").unlink()),
        {INSTRUCTED: rf"{TRAINING} has \d+ bytes.*; .*adapter_model.safetensors is missing$"},
    ),
    "a table edited": (lambda: edit(only("tables") / "arms.csv"), {("tables",): "arms.csv has 15 bytes"}),
    "a table edited by its name": (
        lambda: edit(RESULTS / "tiny/tables/arms.csv"),
        {("tables",): "arms.csv has 15 bytes"},
    ),
    "weights rotten under their kept hash": (
        rot,
        {("fetch_model", "tiny"): "model.safetensors has 43 bytes of sha256 [0-9a-f]{12}, its record says 43 of "},
    ),
    "a listing edited": (
        lambda: edit(only("listing", "tables") / "tables.json"),
        {("listing", "tables"): "tables.json has 15 bytes"},
    ),
    # Without its record an artifact is not made: snakemake makes it where it is needed.
    "a record deleted": (lambda: (only(*TRAIN) / "record.json").unlink(), {}),
    "an artifact deleted": (lambda: shutil.rmtree(only(*TRAIN)), {}),
    "a record garbled": (lambda: edit(only(*TRAIN) / "record.json"), {TRAIN: "not valid JSON"}),
    "a record truncated": (lambda: os.truncate(only(*TRAIN) / "record.json", 40), {TRAIN: "not valid JSON"}),
    "a record emptied": (lambda: os.truncate(only(*TRAIN) / "record.json", 0), {TRAIN: "not valid JSON"}),
    "a record of another schema": (
        lambda: edit(only(*TRAIN) / "record.json", '{"stage": "prepare"}'),
        {TRAIN: "not a record: inputs: Field required"},
    ),
    "an artifact copied by hand": (
        copy_by_hand,
        {(*TRAIN, "0" * 12): "its record is that of .*: it was copied or moved"},
    ),
    "a file that two artifacts share": (
        link_and_edit,
        {("summarise",): "summary.md has", ("claims",): "claims.md has"},
    ),
    "remade with other bytes": (lambda: remade(only(*TRAIN), "other\n"), dict.fromkeys(OF_TRAIN, OTHERS)),
    "remade with the same bytes": (lambda: remade(only(*TRAIN), (only(*TRAIN) / "items.jsonl").read_text()), {}),
    "remade with the same bytes at another time": (
        lambda: edit(
            only(*INSTRUCTED) / "record.json",
            (only(*INSTRUCTED) / "record.json").read_text().replace('"wall_seconds": 1.0', '"wall_seconds": 2.0'),
        ),
        {("tables",): "was made from another .*/record.json than is there now"},
    ),
}


def listed(found: dict[Path, list[str]]) -> dict[tuple[str, ...], str]:
    """What is wrong, by the names of the artifacts; of several of these names, by the key too."""
    named = {}
    for record, reasons in found.items():
        *names, key = record.parent.relative_to(STORE).parts
        alone = len(list(STORE.joinpath(*names).iterdir())) == 1
        named[(*names, *([] if alone or key != "0" * 12 else [key]))] = "; ".join(reasons)
    return named


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_lists_what_is_damaged_and_sets_that_aside(planted, damage, capsys):
    spoil, expected = DAMAGES[damage]
    spoil()
    found = listed(damaged(RESULTS))
    assert found.keys() == expected.keys()
    for names, words in expected.items():
        assert re.search(words, found[names]), found[names]

    records = set(STORE.rglob("record.json"))
    files = {path: path.read_bytes() for path in STORE.rglob("*") if path.is_file()}
    out, end = said("verify", capsys=capsys)
    if not expected:
        assert (out, end) == ("every artifact is what its record says\n", "")
    else:
        assert end == (
            f"error: {len(expected)} artifacts are not what their records say; --set-aside moves them out of the way"
        )
        assert len(out.splitlines()) == len(expected)
    # Nothing but a list: no file is touched.
    assert {path: path.read_bytes() for path in STORE.rglob("*") if path.is_file()} == files

    out, end = said("verify", "--set-aside", capsys=capsys)
    assert end == ""
    gone = records - set(STORE.rglob("record.json"))
    assert listed(dict.fromkeys(gone, [])).keys() == expected.keys() or len(gone) == len(expected)
    aside = {
        path.relative_to(RESULTS / "set-aside"): path for path in (RESULTS / "set-aside").rglob("*") if path.is_file()
    }
    kept = {Path(*name.parts[1:]): path.read_bytes() for name, path in aside.items()}
    folders = {record.parent for record in gone}
    assert kept == {
        path.relative_to(STORE): content for path, content in files.items() if folders & {path.parent, *path.parents}
    }
    assert all(f"{record.parent} → {RESULTS / 'set-aside'}" in out for record in gone)
    if expected:
        assert f"{len(expected)} artifacts set aside" in out
        assert said("verify", capsys=capsys) == ("every artifact is what its record says\n", "")


def test_what_was_made_of_a_remade_artifact_follows_step_by_step(planted, capsys):
    """Each may come out as it was: what was made of it then stays."""
    remade(only(*TRAIN), "other\n")
    said("verify", "--set-aside", capsys=capsys)
    assert damaged(RESULTS) == {}
    after = plant(open_study([TINY]))
    # Planted files of the same names are equal. Only the tables change, which say how long each job took.
    assert listed(damaged(RESULTS)).keys() <= {("tables",)}
    assert after.missing() == []


def test_a_file_that_another_artifact_shares_is_not_touched_by_setting_one_aside(planted):
    here, there = only("prepare", "boxes-test") / "items.jsonl", only(*TRAIN) / "items.jsonl"
    here.unlink()
    os.link(there, here)
    set_aside(RESULTS, there.with_name("record.json"))
    assert here.stat().st_nlink == 2 and not there.exists()


@pytest.mark.parametrize("place", ["nowhere", "config"])
def test_verify_names_the_folder_that_it_needs(folder, place, capsys):
    assert said("verify", "--results", place, capsys=capsys) == (
        "",
        f"error: {place}: no folder results with a store in it; name it with --results",
    )


def test_verify_of_results_elsewhere(planted, folder, tmp_path, monkeypatch, capsys):
    edit(only(*TRAIN) / "items.jsonl")
    monkeypatch.chdir(tmp_path)
    out, _ = said("verify", "--results", folder / "results", "--set-aside", capsys=capsys)
    assert "1 artifacts set aside" in out
    assert len(list((folder / "results/set-aside").rglob("record.json"))) == 1


# prune

FASTER = {"instruct": {"learning_rate": 0.01}}
SIDE = {"study": {"name": "side"}}


def folders_of(finals: FinalArtifacts) -> set[Path]:
    return {one.folder for one in finals.behind_all()}


def artifacts_in(found) -> set[Path]:
    """The folders of artifacts in, or below, what is listed."""
    return {record.parent for place in found for record in place.rglob("record.json")}


@pytest.fixture
def both(planted) -> tuple[FinalArtifacts, FinalArtifacts]:
    """Two studies that share what another learning rate does not change."""
    other = plant(open_study([configure(FASTER | SIDE, "side")]))
    assert folders_of(planted) & folders_of(other)
    return planted, other


def test_prune_lists_what_none_of_the_studies_needs(both):
    first, second = both
    for kept, gone in (([first], second), ([second], first)):
        assert artifacts_in(unneeded(kept)) == folders_of(gone) - folders_of(*kept)
    assert unneeded([first, second]) == {}


def test_prune_deletes_only_what_it_lists_and_only_when_told(both, capsys):
    first, second = both
    before = set(STORE.rglob("*"))
    sizes = unneeded([first])
    out, end = said("prune", "--configfile", TINY, capsys=capsys)
    assert end == "" and set(STORE.rglob("*")) == before
    *lines, total = out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == [str(path) for path in sizes]
    assert total == f"{len(sizes)} folders, {sum(sizes.values()) / 1e6:,.1f} MB, not needed; --yes deletes them"
    assert sum(sizes.values()) == sum(
        path.stat().st_size for place in sizes for path in place.rglob("*") if path.is_file()
    )

    out, end = said("prune", "--configfile", TINY, "--yes", capsys=capsys)
    assert out.splitlines()[-1] == f"{len(sizes)} folders, {sum(sizes.values()) / 1e6:,.1f} MB: deleted"
    assert {path.parent for path in STORE.rglob("record.json")} == folders_of(first)
    assert not any(path.exists() for path in sizes)
    assert why(first, None) == ["The study is made: nothing would run."]
    assert damaged(RESULTS) == {}
    assert said("prune", "--configfile", TINY, capsys=capsys)[0] == "0 folders, 0.0 MB, not needed\n"


def test_prune_keeps_what_any_of_several_studies_needs(both, capsys):
    third = plant(open_study([configure({"refine": {"epochs": 3}} | {"study": {"name": "third"}}, "third")]))
    said("prune", "--configfile", TINY, "--configfile", "config/side.yaml", "--yes", capsys=capsys)
    assert {path.parent for path in STORE.rglob("record.json")} == folders_of(both[0]) | folders_of(both[1])
    assert folders_of(third) - folders_of(both[0])


def test_configuration_files_of_one_flag_are_one_study_as_for_snakemake(both, capsys):
    path = Path("config/faster.yaml")
    path.write_text(yaml.safe_dump(FASTER | SIDE))
    out, _ = said("prune", "--configfile", TINY, path, capsys=capsys)
    kept = both[1]
    assert {line.split("  ")[-1] for line in out.splitlines()[:-1]} == {str(found) for found in unneeded([kept])}


HALF = {
    # Of no key that a study needs: its job was stopped, and the configuration changed.
    "an older key": ("instruct/tiny/oracle-boxes-100-seed0/0123456789ab/trainer/checkpoint-2/state.bin", True),
    "an older name": ("sample/large/base/boxes-100-seed0/0123456789ab/paths.jsonl.partial", True),
    "an older stage": ("base/tiny/0123456789ab/manifest.json", True),
    "a benchmark called code": ("export_task/code/0123456789ab/docs.jsonl", True),
    # Left where a stage was killed between its record and its end.
    "a trainer's folder beside a record": ("instruct/tiny/oracle-boxes-100-seed0/MADE/trainer/state.bin", True),
    "a journal beside a record": ("instruct/tiny/oracle-boxes-100-seed0/MADE/paths.jsonl.partial", True),
    # What is needed goes on from there.
    "a needed key": ("instruct/tiny/oracle-boxes-100-seed0/KEY/trainer/checkpoint-2/state.bin", False),
    "kept code": ("code/0123456789abcdef.json", False),
    "the index": (".contents/ab/abcdef", False),
}


@pytest.mark.parametrize("name", HALF)
def test_prune_takes_in_what_is_half_made(planted, name, capsys):
    place, is_listed = HALF[name]
    key = only(*INSTRUCTED).name
    path = STORE / place.replace("KEY", key).replace("MADE", key)
    if "KEY" in place:
        (only(*INSTRUCTED) / "record.json").unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1_500_000)
    found = unneeded([planted])
    assert list(found.values()) == ([1_500_000] if is_listed else [])
    assert all(path.is_relative_to(place) for place in found)
    out, _ = said("prune", "--yes", "--configfile", TINY, capsys=capsys)
    assert path.exists() != is_listed
    assert ("1.5 MB  results/store/" in out) == is_listed


def test_a_file_of_several_names_counts_with_the_last_that_goes(both):
    first, second = both
    (gone, *more) = sorted(folders_of(second) - folders_of(first))
    big, needed = gone / "big.bin", only("prepare", "boxes-test") / "big.bin"
    big.write_bytes(b"x" * 1_000_000)
    before = sum(unneeded([first]).values())
    os.link(big, more[0] / "big.bin")
    assert sum(unneeded([first]).values()) == before
    os.link(big, needed)
    assert sum(unneeded([first]).values()) == before - 1_000_000


def test_prune_says_that_the_study_is_not_made_as_it_stands(planted, capsys):
    """So nobody deletes checkpoints because a line of the configuration, or of the code, is not what it was."""
    configure(FASTER)
    missing = len(open_study([TINY]).missing())
    out, _ = said("prune", "--configfile", TINY, capsys=capsys)
    assert (
        f"\n{missing} artifacts that are needed are not there: `study.py why` says how they differ from what is\n"
        in out
    )


@pytest.mark.parametrize("command", [("prune", "--configfile", TINY, "--yes"), ("verify", "--set-aside")])
def test_what_changes_the_store_is_alone_in_it(both, command, capsys):
    edit(only(*TRAIN) / "items.jsonl")
    before = set(STORE.rglob("*"))
    with occupy(STORE, stamp_of(STORE)):
        _, end = said(*command, capsys=capsys)
        assert end.startswith("error: another snakemake works on ")
    assert set(STORE.rglob("*")) - before <= {STORE / ".running"}
    planned = stamp_of(STORE)
    said(*command, capsys=capsys)
    with pytest.raises(UserError, match="has worked on .* since this one planned"):
        occupy(STORE, planned)


# why

LOWER = "setting training.learning_rate: 0.02 → 0.01"
WHY = {
    "nothing": ({}, ["The study is made: nothing would run."], []),
    "a default written out": ({"evaluation": {"style": "cot"}}, ["The study is made: nothing would run."], []),
    "another name": (
        {"study": {"name": "again"}},
        [("listing", "-  name: tiny"), ("listing", "+  name: again")],
        ["tables", "evaluate"],
    ),
    "a setting": (FASTER, [("instruct", LOWER)], ["evaluate", "sample", "tables", "refine"]),
    "two settings": (
        {"refine": {"epochs": 3, "learning_rate": 0.01}},
        [("refine", "setting training.epochs: 2.0 → 3.0"), ("refine", "setting training.learning_rate: 0.001 → 0.01")],
        ["instruct", "sample", "evaluate"],
    ),
    "a text": (
        {"prompts": {"choice": {"instruction": "Pick."}}},
        [
            ("teach", 'setting prompt.instruction: "Choose from {labels}." → "Pick."'),
            ("export_task", 'setting prompt.instruction: "Choose from {labels}." → "Pick."'),
        ],
        ["prepare", "demonstrate", "pair"],
    ),
    "one more": (
        {"study": {"seeds": [0, 1]}},
        [("instruct", "there is none with these names yet"), ("listing", "+  - 1")],
        ["prepare", "teach", "demonstrate"],
    ),
    "a title": (
        {"benchmarks": {"far": {"title": "Far away"}}},
        [("claims", 'setting titles.far: "Far" → "Far away"')],
        [],
    ),
}


def reasons(lines: list[str]) -> dict[str, list[str]]:
    """What is said, by stage."""
    found = collections.defaultdict(list)
    stage = ""
    for line in lines[1:]:
        if line and not line.startswith(" "):
            stage = line.split(",")[0]
        elif line:
            found[stage].append(line.strip())
    return found


@pytest.mark.parametrize("name", WHY)
def test_why_names_the_settings_that_differ(planted, name):
    changes, expected, untold = WHY[name]
    lines = why(open_study([configure(changes)]), None)
    if isinstance(expected[0], str):
        assert lines == expected
        return
    assert re.fullmatch(r"The study would be made: \d+ artifacts are missing. What differs:", lines[0])
    found = reasons(lines)
    for stage, said in expected:
        assert said in found[stage]
    # What is to be made for nothing but its inputs is not named, and nor is a file whose keys alone differ.
    assert not found.keys() & {*untold}
    assert not any(
        "/results/store" in line or re.search("[0-9a-f]{12}", line) for each in found.values() for line in each
    )


@pytest.mark.parametrize("target", [None, "results/tiny"])
def test_why_says_that_names_alone_are_to_be_laid_out(planted, target):
    Path("results/tiny/summary.md").unlink()
    assert why(planted, target) == [
        f"{target or 'The study'} is made: nothing would run but the layout of its results."
    ]


@pytest.mark.parametrize("target", [None, "results/tiny/summary.md", "results/store/summarise"])
def test_why_leads_to_a_file_that_was_changed(planted, target):
    one = next(one for one in planted.behind_all() if one.stage == "evaluate")
    before, time = one.file.read_text(), one.file.stat().st_mtime
    one.file.write_text(before.swapcase())
    # Neither its size nor its time tells.
    os.utime(one.file, (time, time))
    first, *_, head, line, last = why(planted, target)
    assert first.endswith("is made: nothing would run.")
    assert head == "But 1 files behind it are not what they were when it was made from them:"
    now, recorded = (f"{len(before)} bytes of {word}" for word in ("sha256 ", ""))
    assert line.startswith(f"  {one.file}: {now}") and f"; {one.record} says {recorded}" in line
    assert "study.py verify --set-aside` moves it out of the way" in last
    one.file.unlink()
    assert f"  {one.file}: is not there; " in "\n".join(why(planted, target))
    one.record.write_text("{")
    assert f"  {one.record}:1: not valid JSON" in "\n".join(why(planted, target))


def test_why_of_something_else_says_nothing_of_it(planted):
    one = next(one for one in planted.behind_all() if one.stage == "evaluate")
    one.file.write_text("other\n")
    assert why(planted, str(STORE / "prepare")) == [f"{STORE / 'prepare'} is made: nothing would run."]


def test_why_compares_with_the_nearest_of_the_same_names(planted):
    plant(open_study([configure({"instruct": {"learning_rate": 0.005, "epochs": 6}})]))
    found = reasons(why(open_study([configure({"instruct": {"learning_rate": 0.01, "epochs": 6}})]), None))
    assert found["instruct"] == ["setting training.learning_rate: 0.005 → 0.01"]
    found = reasons(
        why(open_study([configure({"instruct": {"learning_rate": 0.02, "epochs": 12, "warmup": 0.5}})]), None)
    )
    assert [line.split(":")[0] for line in found["instruct"]] == ["setting training.warmup"]


def test_why_names_the_local_file_that_differs(planted):
    before, path = sha256_of(Path("oracle.jsonl"))[:12], Path("oracle.jsonl")
    path.write_text(path.read_text() + "\n")
    found = reasons(why(open_study([TINY]), None))
    assert set(found["teach"]) == {f"file oracle.jsonl: {before} → {sha256_of(path)[:12]}"}
    assert not found.keys() & {"demonstrate", "instruct", "fetch"}


def test_why_names_the_input_that_differs_where_that_is_there(planted):
    """The start of a name's evaluations is another one, and made already: no setting of theirs differs."""
    faster = plant(open_study([configure(FASTER)]))
    evaluations = [
        one for one in faster.behind_all() if one.stage == "evaluate" and one.folder not in folders_of(planted)
    ]
    for one in evaluations:
        shutil.rmtree(one.folder)
    lines = why(faster, str(STORE / "evaluate"))
    found = reasons(lines)["evaluate"]
    for one in evaluations:
        (start,) = one.inputs["checkpoint"]
        (before,) = [folder for folder in start.folder.parent.iterdir() if folder != start.folder]
        assert f"input {start.folder.parent}: {before.name} → {start.key}" in found
    assert len(evaluations) == 4 and len(found) == 2
    assert [line.endswith(" and 1 more") for line in lines if line.startswith("evaluate, for ")] == [True, True]


def planted_with(**other) -> FinalArtifacts:
    """The tiny study as another state of the code (fingerprints by stage) or of the rules (commands) had it."""
    study = Study.read(read_configuration([TINY]))
    commands = commands_of(REPOSITORY / "rules") | other.get("commands", {})
    code = other.get("code", {})
    known = KnownHashes(Path(os.devnull))
    made = Artifacts(
        study,
        lambda stage: code.get(stage) or versions.version_of(stage, REPOSITORY / "scripts"),
        commands.__getitem__,
        known.sha256,
    )
    return plant(FinalArtifacts(made), code)


def test_why_names_the_command_that_differs(folder):
    command = commands_of(REPOSITORY / "rules")["pair"]
    planted_with(commands={"pair": f"{command} --more"})
    found = reasons(why(open_study([TINY]), None))
    assert found["pair"] == [f"command: {command} --more → {command}"]
    assert not found.keys() & {"sample", "refine", "evaluate"}


def older(stage: str, file: str, old: str, new: str) -> dict:
    """The code that a stage reaches, with `new` where `old` stands, as the store keeps it; it is kept there."""
    kept = snapshot(REPOSITORY / f"scripts/{stage}.py")
    assert kept["files"][file].count(old) == 1
    kept["files"][file] = kept["files"][file].replace(old, new)
    found = fingerprint_of(Code(kept["files"]), f"{stage}.py")
    write_json(STORE / f"code/{found}.json", kept)
    return kept | {"fingerprint": found}


def test_why_names_the_function_that_differs_with_its_changed_lines(folder):
    then = older("pair", "selfrefine/training/pairs.py", 'sha256(f"validation:{item}"', 'sha256(f"held out:{item}"')
    planted_with(code={"pair": then["fingerprint"]})
    found = reasons(why(open_study([TINY]), "results/tiny/summary.md"))
    now = versions.version_of("pair", REPOSITORY / "scripts")
    said = [f"code: {then['fingerprint']} → {now}", "code: validation_items in scripts/selfrefine/training/pairs.py"]
    line = '    ranked = sorted(items, key=lambda item: hashlib.sha256(f"{}:{{item}}".encode()).digest())'
    assert found["pair"] == [*said, f"-{line.format('held out')}", f"+{line.format('validation')}"]
    assert not found.keys() & {"sample", "refine", "evaluate"}


def test_why_says_that_what_ran_was_not_kept(folder):
    planted_with(code={"pair": "ab" * 8})
    found = reasons(why(open_study([TINY]), None))
    kept = STORE / f"code/{'ab' * 8}.json"
    assert found["pair"][1:] == [f"{kept} is not there, so what ran cannot be compared"]


TARGETS = {
    "results/tiny/summary.md": ["instruct", "claims"],
    "results/tiny/tables/arms.csv": ["instruct"],
    "results/tiny": ["instruct", "claims"],
    "results/tiny/figures": ["instruct", "claims"],
    "results/tiny/tables/paper/prompts.md": None,
    "results/tiny/tables/sources.csv": None,
    "results/store/refine": ["instruct"],
    "results/store/refine/tiny/oracle-boxes-100-seed0": ["instruct"],
    "results/store/instruct/tiny/oracle-boxes-100-seed0/000000000000/training.jsonl": ["instruct"],
    "results/store/teach": None,
    "ABSOLUTE/results/tiny/tables/arms.csv": ["instruct"],
}


@pytest.mark.parametrize("target", TARGETS)
def test_why_of_one_target(planted, folder, target):
    """After a change of the instruction's learning rate and of a title that the claims show."""
    finals = open_study([configure(FASTER | {"statistics": {"margin": 4}})])
    lines = why(finals, target.replace("ABSOLUTE", str(folder)))
    stages = TARGETS[target]
    if stages is None:
        assert lines == [f"{target} is made: nothing would run."]
    else:
        found = reasons(lines)
        assert {stage for stage in found if stage != "listing"} == {*stages}
        assert found["instruct"] == [LOWER]


@pytest.mark.parametrize(
    "target",
    ["results/tiny/nothing.md", "results/store/refine/large", "results/other/summary.md", "boxes.jsonl", "/etc/passwd"],
)
def test_why_says_which_targets_there_are(planted, target):
    with pytest.raises(
        UserError, match=f"^{re.escape(target)}: (the study has no such result|this configuration has no )"
    ):
        why(planted, target)


# adopt


@pytest.fixture
def checkout(folder, tmp_path) -> Path:
    """A copy of the repository whose code counts as version 1 of each stage; its study is made of that."""
    place = tmp_path / "a checkout"
    for name in ("scripts", "rules", "config"):
        shutil.copytree(REPOSITORY / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    commands = commands_of(place / "rules")
    code = {path.stem: fingerprint(path) for path in (place / "scripts").glob("*.py") if path.stem in commands}
    listed = {stage: {"version": 1, "fingerprints": {found: "the first"}} for stage, found in code.items()}
    write_json(place / "scripts/versions.json", listed)
    known = KnownHashes(Path(os.devnull))
    study = Study.read(read_configuration([TINY]))
    plant(FinalArtifacts(Artifacts(study, lambda stage: "version 1", commands.__getitem__, known.sha256)), code)
    write_json(STORE / f"code/{code['pair']}.json", snapshot(place / "scripts/pair.py"))
    return place


def at(checkout: Path, *arguments, check: bool = True) -> str:
    """What the checkout's program says, run in the working directory."""
    outcome = run("python", checkout / "scripts/study.py", *arguments, cwd=Path.cwd(), check=check)
    return outcome.stdout + outcome.stderr


def test_adopted_code_counts_as_its_version_and_a_trace_says_why(checkout):
    file, real = checkout / "scripts/versions.json", (REPOSITORY / "scripts/versions.json").read_bytes()
    before = read_json(file)
    explain = ("why", "--configfile", TINY)
    assert "The study is made: nothing would run." in at(checkout, *explain)

    script = checkout / "scripts/pair.py"
    text = script.read_text()
    script.write_text(text.replace("\ndef main() -> None:\n", "\ndef main() -> None:\n    unused = None\n", 1))
    assert script.read_text() != text
    found = at(checkout, *explain)
    changed = fingerprint_of(read_code.__wrapped__(checkout / "scripts"), "pair.py")
    assert f"\n  code: version 1 → {changed}\n" in found
    assert "\n  code: main in scripts/pair.py\n    +    unused = None\n" in found
    assert "\npair, for results/store/pair/" in found and "\nrefine, " not in found

    outcome = at(checkout, "adopt", "pair", "--because", "a variable that nobody reads")
    assert outcome == "pair: version 1, 2 fingerprints\n"
    after = read_json(file)
    assert after == before | {
        "pair": {
            "version": 1,
            "fingerprints": before["pair"]["fingerprints"] | {changed: "a variable that nobody reads"},
        }
    }
    assert (REPOSITORY / "scripts/versions.json").read_bytes() == real
    assert "The study is made: nothing would run." in at(checkout, *explain)

    # What the changed code makes has the same key; its record says which code that was.
    pairs = only("pair", "tiny", "oracle-boxes-100-seed0", "boxes-cot-100-seed0")
    record = read_record(pairs / "record.json").model_copy(update={"code": changed})
    write_json(pairs / "record.json", record.model_dump(mode="json"))
    chain = at(checkout, "trace", pairs / "pairs.jsonl", check=False).splitlines()
    assert chain[0].startswith("pair ")
    assert chain[1] == "  code version 1 (because a variable that nobody reads)"
    assert sum("(because" in line for line in chain) == 1

    assert at(checkout, "adopt", "pair", "--because", "ties are broken", "--new") == "pair: version 2, 1 fingerprints\n"
    assert read_json(file)["pair"] == {"version": 2, "fingerprints": {changed: "ties are broken"}}
    assert "\n  code: version 1 → version 2\n" in at(checkout, *explain)


def test_adopt_says_what_it_needs(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "scripts", checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    before = (checkout / "scripts/versions.json").read_bytes()
    for arguments, words in (
        (["nothing", "--because", "x"], "nothing: there is no stage of this name"),
        (["pair", "--because", " "], "say why the results are the same, or why they are not"),
        (["pair"], "the following arguments are required: --because"),
    ):
        outcome = run("python", checkout / "scripts/study.py", "adopt", *arguments, check=False)
        assert outcome.returncode and words in outcome.stderr
    assert (checkout / "scripts/versions.json").read_bytes() == before


# Kept hashes


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The files that were read to take their hash."""
    found: list[str] = []
    monkeypatch.setattr(
        "selfrefine.store.hashing.sha256_of", lambda path: found.append(Path(path).name) or sha256_of(path)
    )
    return found


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("abd")
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    os.replace(other, path)


def edited_in_secret(path: Path) -> None:
    """Of the same size, with the old modification time."""
    known = path.stat().st_mtime_ns
    path.write_text("abd")
    os.utime(path, ns=(known, known))


STATES = {
    "nothing": (lambda path: None, 0),
    "read": (lambda path: path.read_text(), 0),
    "edited": (lambda path: path.write_text("abcd"), 1),
    "edited, of the same size and time": (edited_in_secret, 1),
    "replaced by another, of the same size and time": (replaced, 1),
    "touched": (lambda path: os.utime(path, (2e9, 2e9)), 1),
    "moved away and back": (lambda path: path.rename(path.with_name("b")).rename(path), 1),
}


@pytest.mark.parametrize("name", STATES)
def test_a_hash_is_kept_as_long_as_the_file_is_in_the_same_state(tmp_path, hashed, name):
    path, place = tmp_path / "a", tmp_path / "hashes.jsonl"
    path.write_text("abc")
    for _ in range(2):
        assert KnownHashes(place).sha256(path) == sha256_of(path)
    assert hashed == ["a"]
    change, times = STATES[name]
    change(path)
    for _ in range(2):
        assert KnownHashes(place).sha256(path) == sha256_of(path)
    # Some file systems tell change times apart only every few milliseconds, but sizes at once.
    assert len(hashed) == 1 + times


def test_a_file_that_is_not_there_has_no_hash_and_its_kept_one_does_not_count(tmp_path):
    path, place = tmp_path / "a", tmp_path / "hashes.jsonl"
    assert KnownHashes(place).sha256(path) is None
    path.write_text("abc")
    KnownHashes(place).sha256(path)
    path.unlink()
    assert KnownHashes(place).sha256(path) is None


@pytest.mark.parametrize("torn", ["", "[", '["a', "\x00\x00", "[1]\n"])
def test_kept_hashes_survive_a_torn_line(tmp_path, hashed, torn):
    path, place = tmp_path / "a", tmp_path / "hashes.jsonl"
    path.write_text("abc")
    KnownHashes(place).sha256(path)
    place.write_text(place.read_text() + torn)
    assert KnownHashes(place).sha256(path) == sha256_of(path)
    assert hashed == ["a"]


def test_kept_hashes_do_not_grow_without_end(tmp_path):
    path, place = tmp_path / "a", tmp_path / "hashes.jsonl"
    path.write_text("abc")
    KnownHashes(place).sha256(path)
    place.write_text(place.read_text() * 2000)
    KnownHashes(place)
    assert len(place.read_text().splitlines()) == 1


def test_a_copied_folder_takes_its_hashes_again(tmp_path, hashed):
    (tmp_path / "one").mkdir()
    path = tmp_path / "one/a"
    path.write_text("abc")
    os.chdir(tmp_path / "one")
    KnownHashes(Path("hashes.jsonl")).sha256(Path("a"))
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copy2)
    os.chdir(tmp_path / "two")
    KnownHashes(Path("hashes.jsonl")).sha256(Path("a"))
    assert hashed == ["a", "a"]


def test_a_plan_reads_local_files_once_and_keeps_what_they_hold(folder, hashed):
    local = {"boxes.jsonl", "oracle.jsonl", "config.json", "model.safetensors"}
    list(open_study([TINY]).behind_all())
    # The store is not there yet, and is not made for this.
    assert not STORE.exists() and {*hashed} == local
    STORE.mkdir(parents=True)
    for _ in range(3):
        list(open_study([TINY]).behind_all())
    assert collections.Counter(hashed) == dict.fromkeys(local, 2)
    edit(Path("oracle.jsonl"), Path("oracle.jsonl").read_text() + "\n")
    list(open_study([TINY]).behind_all())
    assert collections.Counter(hashed) == dict.fromkeys(local, 2) | {"oracle.jsonl": 3}
    kept = (STORE / ".hashes.jsonl").read_bytes()
    edit(Path("oracle.jsonl"), Path("oracle.jsonl").read_text() + "\n")
    list(finals_of(Study.read(read_configuration([TINY])), keep=False).behind_all())
    assert (STORE / ".hashes.jsonl").read_bytes() == kept


def test_large_files_of_the_store_are_hashed_once_for_all_jobs(planted, hashed, monkeypatch):
    monkeypatch.setattr(provenance, "LARGE", 1)
    weights = only("fetch_model", "tiny") / "model.safetensors"
    for _ in range(3):
        assert checked(weights) == read_record(weights.with_name("record.json")).outputs[str(weights)]
    assert hashed == ["model.safetensors"]
    weights.write_text(weights.read_text().upper())
    with pytest.raises(UserError, match="it was changed after it was made"):
        checked(weights)
    assert set(artifacts_in(unneeded([planted]))) == set()


def test_the_planted_study_is_one_that_snakemake_has_nothing_to_add_to(planted):
    """What these tests rest on."""
    assert planted.missing() == [] and len(folders_of(planted)) > 30
    outcome = run("snakemake", "-n", "--cores", "1", "--configfile", TINY, cwd=Path.cwd())
    assert "Nothing to be done" in outcome.stdout + outcome.stderr


def test_a_finished_study_is_kept_in_order_wherever_its_results_lie(finished, tmp_path):
    place, disk = tmp_path / "a study with spaces", tmp_path / "another disk"
    shutil.copytree(finished[0], place, symlinks=True)
    shutil.move(place / "results", disk)
    (place / "results").symlink_to(disk)

    def study(*arguments) -> str:
        outcome = run("python", "scripts/study.py", *arguments, cwd=place, check=False)
        return outcome.stdout + outcome.stderr

    configured = ("--configfile", TINY)
    assert study("verify") == "every artifact is what its record says\n"
    assert study("trace", "--all").endswith(": every link holds\n")
    assert study("why", *configured) == "The study is made: nothing would run.\n"
    assert study("prune", *configured) == "0 folders, 0.0 MB, not needed\n"
    assert "Nothing to be done" in snakemake(place, "-n").stdout

    (paths,) = place.glob("results/store/sample/**/paths.jsonl")
    name, text = paths.relative_to(place), paths.read_text()
    paths.write_text(text.replace("answer", "Answer", 1))
    said = study("verify")
    assert said.startswith(f"{name.parent}: paths.jsonl has ") and "error: 1 artifacts are not what" in said
    cell = ("results/tiny/figures/accuracy.svg", "arm=refine", "evaluation=boxes")
    assert f"broken: {name}: expected " in study("trace", *cell)
    assert f"{name.parent} → results/set-aside/" in study("verify", "--set-aside")
    made_again = f"`snakemake {name.parent}/record.json --configfile config/tiny.yaml` makes it again"
    assert made_again in study("trace", *cell)
    # The rest of the study was made of what the record said, and stays.
    assert "Nothing to be done" in snakemake(place, "-n").stdout

    archive = tmp_path / "the study.zip"
    run("python", "scripts/study.py", "crate", "--license", "CC-BY-4.0", "--archive", archive, cwd=place)
    with zipfile.ZipFile(archive) as file:
        kept = file.namelist()
    assert not [path for path in kept if "set-aside" in path or "paths.jsonl" in path]
    assert len([path for path in kept if path.endswith("/record.json")]) == len(list(disk.glob("store/**/record.json")))


def test_a_file_of_the_users_that_is_called_record_json_is_none_of_ours(folder):
    Path("record.json").write_text("{}")
    sources = {"boxes.jsonl": sha256_of(Path("boxes.jsonl"))}
    with Run(REPOSITORY / "scripts/fetch.py", {}, [], Path("elsewhere/record.json"), sources=sources) as fetching:
        assert fetching.inputs == {"boxes.jsonl": state_of(Path("boxes.jsonl"))}
