"""The versions of the stages' code: the list is held to what is committed, and `adopt` keeps it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from conftest import REPOSITORY
from selfrefine.errors import UserError
from selfrefine.store.versions import adopt, read_versions, version_of

SCRIPTS = REPOSITORY / "scripts"
RULES = "".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
# The stages whose code is part of a key.
STAGES = sorted(set(re.findall(r'code=code\("(\w+)"\)', RULES)))
# By stage, its version as it is committed.
LISTED = {stage: entry.version for stage, entry in read_versions(SCRIPTS).items()}


@pytest.fixture
def scripts(tmp_path) -> Path:
    """A copy of the scripts, to be edited."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "scripts"


def edit(scripts: Path, name: str, old: str, new: str) -> None:
    path = scripts / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def again(folder: Path, number: int) -> Path:
    """A copy of scripts under another path: code is read once per path."""
    return Path(shutil.copytree(folder, folder.with_name(f"scripts-{number}")))


def test_every_stage_of_the_rules_has_a_version():
    assert len(STAGES) == 23
    assert sorted(read_versions(SCRIPTS)) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_is_committed_is_listed(stage):
    found, version = version_of(stage, SCRIPTS), read_versions(SCRIPTS)[stage].version
    assert found == f"version {version}", (
        f"the code of stage {stage} has fingerprint {found}, which scripts/versions.json does not list. If its results "
        f'are the same: python scripts/study.py adopt {stage} --because "…"; if they are not, with --new'
    )


def test_each_fingerprint_has_a_reason():
    for stage, entry in read_versions(SCRIPTS).items():
        assert entry.fingerprints, stage
        assert all(re.fullmatch("[0-9a-f]{16}", fingerprint) for fingerprint in entry.fingerprints), stage
        assert all(reason.strip() for reason in entry.fingerprints.values()), stage


def test_edited_code_counts_by_its_fingerprint_until_it_is_adopted(scripts):
    edit(scripts, "pair.py", "or loosen the recipe", "or another recipe")
    found = version_of("pair", scripts)
    assert re.fullmatch("[0-9a-f]{16}", found)
    assert version_of("claims", scripts) == f"version {LISTED['claims']}"
    known = adopt("pair", "a message", scripts)
    assert (known.version, known.fingerprints[found]) == (LISTED["pair"], "a message")
    assert version_of("pair", scripts) == f"version {LISTED['pair']}"


def test_a_new_version_lists_its_own_fingerprint_alone(scripts):
    edit(scripts, "pair.py", "or loosen the recipe", "or another recipe")
    found = version_of("pair", scripts)
    known = adopt("pair", "pairs are chosen otherwise", scripts, raise_version=True)
    assert (known.version, known.fingerprints) == (LISTED["pair"] + 1, {found: "pairs are chosen otherwise"})
    assert version_of("pair", scripts) == f"version {known.version}"
    # What was the version before is not taken for it.
    back = again(scripts, 1)
    edit(back, "pair.py", "or another recipe", "or loosen the recipe")
    assert re.fullmatch("[0-9a-f]{16}", version_of("pair", back))


def test_the_file_is_kept_in_order(scripts):
    before = json.loads((scripts / "versions.json").read_text())
    adopt("tables", "as it stands", scripts)
    after = json.loads((scripts / "versions.json").read_text())
    assert list(after) == sorted(before)
    assert {stage: entry for stage, entry in after.items() if stage != "tables"} == {
        stage: entry for stage, entry in before.items() if stage != "tables"
    }


@pytest.mark.parametrize(
    ("stage", "because", "told"),
    [
        ("tabels", "a typo", "tabels: there is no stage of this name"),
        ("pair", "  ", "say why the results are the same"),
    ],
)
def test_what_cannot_be_adopted_is_refused(scripts, stage, because, told):
    with pytest.raises(UserError, match=told):
        adopt(stage, because, scripts)


def test_a_list_that_cannot_be_read_names_the_fault(scripts):
    (scripts / "versions.json").write_text('{"pair": {"version": 0, "fingerprints": {}}}')
    with pytest.raises(UserError, match=r"versions.json: version: "):
        version_of("pair", scripts)
