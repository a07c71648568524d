"""The register of policies: pre-registered, changed since, dated later, edited."""

import copy
import datetime
import json
from pathlib import Path

import pytest

from conftest import run, snakemake
from selfrefine.analysis.extension import Evaluated, undeclared_looks
from selfrefine.analysis.registration import differences, registration_of
from selfrefine.schema.record import Record
from selfrefine.store.files import read_json
from selfrefine.store.locations import POLICIES
from selfrefine.store.register import WITNESS, entries, hash_of, register, witness
from selfrefine.study.policy import policy_of
from test_planning import planner

POLICY = {"statistics": {"level": 0.95}, "design": {"seeds": [0]}}
STRICTER = {**POLICY, "statistics": {"level": 0.99}}
HOUR = datetime.timedelta(hours=1)


def evaluation(started: datetime.datetime, named: dict[str, str]) -> Record:
    facts = {"bytes": 1, "sha256": "0" * 64}
    return Record(
        stage="evaluate",
        inputs={},
        outputs={"a": facts},
        settings={},
        seed=None,
        code="0" * 16,
        version="",
        command="",
        content="",
        figures=named,
        packages={},
        machine={},
        started=started,
        wall_seconds=0,
        peak_memory_mib=0,
    )


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def rewrite(store: Path, change) -> None:
    path = store / POLICIES
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


def test_a_policy_from_before_the_first_evaluation_is_pre_registered(tmp_path):
    register("mine", POLICY, tmp_path)
    found = registration_of(POLICY, entries(tmp_path), [evaluation(now() + HOUR, witness(tmp_path))])
    assert found["status"] == "pre-registered"
    assert found["told"] == f"Pre-registered on {now():%Y-%m-%d} as {hash_of(POLICY)}, before the first evaluation."
    assert (found["hash"], found["policy"], found["changes"]) == (hash_of(POLICY), POLICY, [])


def test_what_changed_after_the_first_evaluation_is_told(tmp_path):
    register("mine", POLICY, tmp_path)
    first = evaluation(now(), witness(tmp_path))
    longer = {**STRICTER, "design": {"seeds": [0, 1, 2]}}
    register("mine", longer, tmp_path)
    later = evaluation(now() + HOUR, witness(tmp_path))
    found = registration_of(longer, entries(tmp_path), [later, first])
    assert found["status"] == "changed"
    assert found["changes"] == ["design.seeds: 0 → 0, 1, 2", "statistics.level: 0.95 → 0.99"]
    assert hash_of(POLICY) in found["told"] and "0.95 → 0.99" in found["told"]
    # Who goes back to it is judged by what was registered.
    assert registration_of(POLICY, entries(tmp_path), [later, first])["status"] == "pre-registered"


def test_the_same_policy_is_noted_once_and_after_another_study_again(tmp_path):
    for study, policy in (("mine", POLICY), ("mine", POLICY), ("other", STRICTER), ("mine", POLICY)):
        register(study, policy, tmp_path)
    assert [entry.study for entry in entries(tmp_path)] == ["mine", "other", "mine"]


def test_evaluations_from_before_the_register_are_told(tmp_path):
    register("mine", POLICY, tmp_path)
    old, new = evaluation(now() - HOUR, {}), evaluation(now() + HOUR, witness(tmp_path))
    found = registration_of(POLICY, entries(tmp_path), [new, old])
    assert found["status"] == "not pre-registered"
    assert "before any policy was registered" in found["told"]


def test_a_policy_that_is_dated_later_than_the_first_evaluation_shows(tmp_path):
    register("mine", POLICY, tmp_path)
    found = registration_of(POLICY, entries(tmp_path), [evaluation(now() - HOUR, witness(tmp_path))])
    assert found["status"] == "not pre-registered"
    assert "after that evaluation began" in found["told"]


def test_a_register_that_was_edited_shows(tmp_path):
    """Policies put in, taken out, replaced and dated back, after evaluations have named what was there."""
    register("mine", POLICY, tmp_path)
    evaluations = [evaluation(now() + HOUR, witness(tmp_path))]
    register("mine", STRICTER, tmp_path)
    evaluations.append(evaluation(now() + 2 * HOUR, witness(tmp_path)))
    text = (tmp_path / POLICIES).read_text()
    early = (now() - 9 * HOUR).isoformat()
    for change in (
        lambda rows: [{**rows[0], "policy": STRICTER}, rows[1]],
        lambda rows: [{**rows[0], "registered": early}, rows[1]],
        lambda rows: [rows[0], {**rows[1], "registered": early}],
        lambda rows: [{**rows[1], "before": ""}],
        lambda rows: rows[:1],
        lambda rows: rows[::-1],
        lambda rows: [],
    ):
        (tmp_path / POLICIES).write_text(text)
        rewrite(tmp_path, change)
        for policy in (POLICY, STRICTER):
            found = registration_of(policy, entries(tmp_path), evaluations)
            assert found["status"] == "edited", found["told"]
            assert "register of policies was edited" in found["told"]
    (tmp_path / POLICIES).write_text(text)
    assert registration_of(POLICY, entries(tmp_path), evaluations)["status"] == "pre-registered"


def test_a_line_that_a_kill_tore_is_no_line(tmp_path):
    register("mine", POLICY, tmp_path)
    whole = (tmp_path / POLICIES).read_bytes()
    for end in range(len(whole)):
        (tmp_path / POLICIES).write_bytes(whole[:end])
        register("mine", STRICTER, tmp_path)
        register("mine", POLICY, tmp_path)
        found = entries(tmp_path)
        assert [entry.policy for entry in found][-2:] == [STRICTER, POLICY]
        assert registration_of(POLICY, found, [evaluation(now(), witness(tmp_path))])["status"] == "pre-registered"


def test_without_evaluations_nothing_is_claimed(tmp_path):
    assert registration_of(POLICY, [], [])["status"] == "not pre-registered"
    assert witness(tmp_path) == {}


def test_the_policy_names_all_that_decides_a_verdict():
    study = planner().study
    policy = policy_of(study)
    for section, key, value in (
        *(("statistics", key, value) for key, value in (("level", 0.9), ("margin", 3))),
        *(("study", key, value) for key, value in (("seeds", [7]), ("shares", [100]), ("evaluate", ["gsm8k"]))),
        ("", "extractor", "legacy"),
    ):
        other = copy.deepcopy(study)
        object.__setattr__(getattr(other, section) if section else other, key, value)
        assert [*differences(policy, policy_of(other))], key
    assert len(policy["claims"]) == 7
    reordered = copy.deepcopy(study)
    object.__setattr__(reordered.study, "arms", study.study.arms[::-1])
    assert policy_of(reordered) == policy
    renamed = copy.deepcopy(study)
    object.__setattr__(renamed.study, "name", "another")
    assert policy_of(renamed) == policy


# Runs of a study, one after the other: seeds, declared looks, and which seeds were evaluated in the run; then the looks
# that were taken before the last run and not declared.
EXTENDED = {
    "run once": ([([0, 1, 2], None, [0, 1, 2])], []),
    "run again": ([([0, 1], None, [0, 1]), ([0, 1], None, [])], []),
    "extended once": ([([0, 1], None, [0, 1]), ([0, 1, 2], None, [2])], [2]),
    "extended twice": ([([0, 1], None, [0, 1]), ([0, 1, 2], None, [2]), ([0, 1, 2, 3, 4], None, [3, 4])], [2, 3]),
    "from one seed": ([([0], None, [0]), ([0, 1, 2], None, [1, 2])], []),
    "other seeds": ([([5, 6], None, [5, 6]), ([0, 1, 2], None, [0, 1, 2])], []),
    "fewer seeds again": ([([0, 1, 2], None, [0, 1, 2]), ([0, 1], None, [])], []),
    "fewer seeds in between": ([([0, 1, 2], None, [0, 1, 2]), ([0, 1], None, []), ([0, 1, 2], None, [])], []),
    "extended before its evaluations were whole": ([([0, 1], None, [0]), ([0, 1, 2], None, [1, 2])], []),
    "extended, then whole": (
        [([0, 1], None, [0]), ([0, 1, 2, 3], None, []), ([0, 1], None, [1]), ([0, 1, 2, 3], None, [2, 3])],
        [2],
    ),
    "declared before": ([([0, 1], [2, 3], [0, 1]), ([0, 1, 2], [2, 3], [2])], []),
    "declared afterwards": ([([0, 1], None, [0, 1]), ([0, 1, 2], [2, 3], [2])], [2]),
    "declared otherwise": ([([0, 1], [2, 5], [0, 1]), ([0, 1, 2], [2, 3], [2])], [2]),
    "any": ([([0, 1], "any", [0, 1]), ([0, 1, 2], "any", [2])], []),
    "any afterwards": ([([0, 1], None, [0, 1]), ([0, 1, 2], "any", [2])], []),
}


@pytest.mark.parametrize(("runs", "looks"), EXTENDED.values(), ids=EXTENDED)
def test_seeds_that_were_added_after_a_look_are_known_by_the_register(tmp_path, runs, looks):
    evaluated = [Evaluated("", "far", {})]
    for seeds, declared, now_evaluated in runs:
        policy = {"statistics": {"level": 0.95, "looks": declared}, "design": {"seeds": seeds}}
        register("mine", policy, tmp_path)
        evaluated += [Evaluated(seed, "far", witness(tmp_path)) for seed in now_evaluated]
    judged = [one for one in evaluated if one.seed in ("", *seeds)]
    assert undeclared_looks(policy, entries(tmp_path), judged) == looks
    # A benchmark that came with the further seeds hides no look at another one.
    late = [Evaluated(seed, "new", witness(tmp_path)) for seed in seeds]
    assert undeclared_looks(policy, entries(tmp_path), judged + late) == looks


def test_evaluations_from_before_the_register_count_as_seen(tmp_path):
    policy = {"statistics": {"looks": None}, "design": {"seeds": [0, 1]}}
    register("mine", policy, tmp_path)
    longer = {**policy, "design": {"seeds": [0, 1, 2]}}
    register("mine", longer, tmp_path)
    old = [Evaluated(0, "far", {}), Evaluated(1, "far", {}), Evaluated(2, "far", witness(tmp_path))]
    assert undeclared_looks(longer, entries(tmp_path), old) == [2]


def test_a_study_registers_before_it_evaluates_and_says_what_changed(fresh):
    """The whole way: no evaluation runs again when the policy changes, and summary, claims and page say so."""
    folder, path, config = fresh
    snakemake(folder)
    results = folder / "results/tiny"
    first = read_json(results / "claims.json")["registration"]
    assert first["status"] == "pre-registered"
    for name in ("claims.md", "summary.md", "index.html"):
        assert first["hash"] in (results / name).read_text(), name
    records = sorted((folder / "results/store/evaluate").rglob("record.json"))
    named = {record: read_json(record)["figures"][WITNESS] for record in records}
    assert set(named.values()) == {entries(folder / "results/store")[0].digest}
    times = {record: record.stat().st_mtime_ns for record in records}

    config["statistics"] = {"level": 0.9}
    path.write_text(json.dumps(config))
    run("snakemake", "--cores", "2", "--configfile", path, "-n", "-q", cwd=folder)
    assert len(entries(folder / "results/store")) == 1  # a dry run registers nothing
    snakemake(folder)
    assert read_json(results / "claims.json")["undeclared_looks"] == []
    changed = read_json(results / "claims.json")["registration"]
    assert (changed["status"], changed["changes"]) == ("changed", ["statistics.level: 0.95 → 0.9"])
    for name in ("claims.md", "summary.md", "index.html"):
        assert first["hash"] in (results / name).read_text(), name
        assert "0.95 → 0.9" in " ".join((results / name).read_text().split()), name
    found = sorted((folder / "results/store/evaluate").rglob("record.json"))
    assert {record: record.stat().st_mtime_ns for record in found} == times


@pytest.mark.parametrize("register_there", [True, False])
def test_an_evaluation_names_the_line_that_was_last(tmp_path, monkeypatch, register_there):
    monkeypatch.chdir(tmp_path)
    if register_there:
        register("mine", POLICY)
        register("other", STRICTER)
    assert witness() == ({WITNESS: entries()[-1].digest} if register_there else {})
