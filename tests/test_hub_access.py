"""What is fetched from the Hugging Face hub is checked before the first job, against stand-ins for the hub."""

import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import yaml
from huggingface_hub import errors

from conftest import REPOSITORY, make_workflow, run
from selfrefine.data.fetching import fetch_model
from selfrefine.errors import UserError
from selfrefine.schema.source import Source
from selfrefine.study.hub_access import check_access
from selfrefine.study.hub_sources import gated, hub_notes
from selfrefine.study.open_study import open_study

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPLITS = {"train": {"file": "train", "size": 40}, "test": {"file": "test", "size": 20}}


def configuration(files: dict[str, str] | None = None, **models: dict) -> dict:
    """A study whose student, teacher and benchmark come from the hub."""
    known = {"student": {"source": "hf-model:org/student@main"}, "teacher": {"source": "hf-model:org/teacher@main"}}
    files = files or {split: f"hf:org/data@main/{split}.jsonl" for split in SPLITS}
    return {
        "study": {"students": ["s"], "teachers": ["t"], "tasks": ["mine"], "evaluate": ["mine"]},
        "models": {name: entry | models.get(name, {}) for name, entry in known.items()},
        "students": {"s": {"model": "student", "family": "s"}},
        "teachers": {"t": {"model": "teacher", "family": "t", "engine": "transformers"}},
        "benchmarks": {
            "mine": {
                "title": "Mine",
                "kind": "math",
                "files": {split: {"source": source} for split, source in files.items()},
                "fields": {"question": "question", "answer": "answer", "answer_is": "number"},
                "splits": SPLITS,
            }
        },
    }


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A function that opens a study in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def opened(config: dict):
        Path("study.yaml").write_text(yaml.safe_dump(config))
        return open_study([Path("study.yaml")])

    return opened


class Hub:
    """A stand-in for the hub: it counts what it is asked, and raises what a test has for a repository."""

    def __init__(self):
        self.asked: list[str] = []
        self.faults: dict[str, type[Exception]] = {}
        self.cached: set[str] = set()
        self.token: str | None = None

    def head(self, url: str, timeout: float) -> None:
        assert timeout <= 10
        self.asked.append(url.removeprefix("https://huggingface.co/"))
        for repository, fault in self.faults.items():
            if repository in url:
                response = httpx2.Response(403, request=httpx2.Request("HEAD", url))
                raise fault("no", response=response) if issubclass(fault, errors.HfHubHTTPError) else fault("no way")


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", hub.head)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: hub.token)
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda name, file, **_: f"/cache/{file}" if name in hub.cached else None,
    )
    return hub


def test_each_repository_is_asked_once_for_a_file_at_its_revision(opened, hub):
    files = {split: f"hf:org/data@refs%2Fconvert%2Fparquet/{split}.jsonl" for split in SPLITS}
    finals = opened(configuration(files, student={"source": f"hf-model:org/student@{COMMIT}"}))
    check_access(finals.study, finals.missing())
    assert sorted(hub.asked)[1:] == [
        f"org/student/resolve/{COMMIT}/config.json",
        "org/teacher/resolve/main/config.json",
    ]
    assert sorted(hub.asked)[0].startswith("datasets/org/data/resolve/refs%2Fconvert%2Fparquet/t")


@pytest.mark.parametrize(("token", "state"), [(None, "no token is here"), ("hf_x", "the token that is here has none")])
def test_a_gated_model_is_named_with_its_page_and_the_way_to_log_in(opened, hub, token, state):
    hub.faults, hub.token = {"org/student": errors.GatedRepoError}, token
    finals = opened(configuration())
    with pytest.raises(UserError) as caught:
        check_access(finals.study, finals.missing())
    told = str(caught.value)
    assert told.startswith("models.student: org/student is gated") and state in told
    assert "https://huggingface.co/org/student, accept its licence" in told and "hf auth login" in told
    assert "hf_x" not in told and "teacher" not in told


@pytest.mark.parametrize(
    ("repository", "fault", "told"),
    [
        ("org/teacher", errors.RepositoryNotFoundError, "models.teacher: org/teacher is not on the Hugging Face hub"),
        ("org/data", errors.RevisionNotFoundError, "org/data has no such revision: https://huggingface.co/datasets/"),
        ("org/data", errors.RemoteEntryNotFoundError, "org/data has no such file at this revision"),
    ],
)
def test_what_the_hub_does_not_have_is_told(opened, hub, repository, fault, told):
    hub.faults = {repository: fault}
    finals = opened(configuration())
    with pytest.raises(UserError, match=told):
        check_access(finals.study, finals.missing())
    assert len(hub.asked) == 3


def test_all_faults_are_told_at_once(opened, hub):
    hub.faults = {"org/student": errors.GatedRepoError, "org/data": errors.GatedRepoError}
    finals = opened(configuration())
    with pytest.raises(UserError, match=r"benchmarks.mine.files.*datasets/org/data,.*models.student|models.student.*"):
        check_access(finals.study, finals.missing())


@pytest.mark.parametrize("fault", [errors.OfflineModeIsEnabled, httpx2.ConnectError, TimeoutError])
def test_without_a_network_what_is_cached_is_enough(opened, hub, fault):
    hub.faults = dict.fromkeys(("org/student", "org/teacher", "org/data"), fault)
    finals = opened(configuration())
    with pytest.raises(UserError) as caught:
        check_access(finals.study, finals.missing())
    told = str(caught.value)
    assert "is not reached" in told and all(name in told for name in hub.faults) and "HF_ENDPOINT" in told
    assert len(hub.asked) == 1, "it is not asked again, which takes seconds each time"
    hub.cached = {"org/student", "org/data"}
    with pytest.raises(UserError, match=r"not in its cache here: models.teacher \(org/teacher\);"):
        check_access(finals.study, finals.missing())
    hub.cached |= {"org/teacher"}
    check_access(finals.study, finals.missing())


def test_what_is_not_of_the_hub_is_not_asked(opened, hub):
    Path("rows.jsonl").write_text("{}\n")
    local = {"source": "file:rows.jsonl"}
    finals = opened(configuration(dict.fromkeys(SPLITS, "file:rows.jsonl"), student=local, teacher=local))
    check_access(finals.study, finals.missing())
    assert hub.asked == []


def test_the_data_of_a_task_of_lm_eval_is_asked_for_too(opened, hub, monkeypatch):
    config = configuration()
    config["study"]["evaluate"] = ["mine", "lm_eval:gpqa_main_zeroshot"]
    listed = type("Info", (), {"siblings": [type("File", (), {"rfilename": n})() for n in ("README.md", "a.csv")]})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: listed)
    hub.faults = {"datasets/Idavidrein/gpqa/resolve/main/a.csv": errors.GatedRepoError}
    finals = opened(config)
    with pytest.raises(UserError, match="lm_eval:gpqa_main_zeroshot: Idavidrein/gpqa is gated"):
        check_access(finals.study, finals.missing())


def test_the_dry_run_names_what_the_configuration_calls_gated(opened):
    assert gated(opened(configuration())) == []
    (line,) = gated(opened(configuration(student={"gated": True})))
    assert "models.student (https://huggingface.co/org/student)" in line and "teacher" not in line
    notes = "\n".join(hub_notes(opened(configuration(student={"source": f"hf-model:org/student@{COMMIT}"}))))
    assert "Not pinned to a commit: " in notes and "models.teacher (org/teacher)" in notes and "student" not in notes


def test_gated_changes_no_key_and_no_record(opened):
    plain, named = (opened(configuration(student=extra)) for extra in ({}, {"gated": True}))
    assert [one.folder for one in plain.missing() if one.stage != "listing" and one.stage != "page"] == [
        one.folder for one in named.missing() if one.stage != "listing" and one.stage != "page"
    ]
    assert "gated" not in Source(source="file:x").model_dump()
    assert Source(source="file:x", gated=True).model_dump()["gated"] is True


def test_sources_with_a_sum_or_a_commit_are_pinned():
    given = {"source": "hf:org/data@main/x.jsonl"}
    assert not Source(**given).pinned and Source(**given, sha256="0" * 64).pinned
    assert Source(source=f"hf-model:org/model@{COMMIT}").pinned and Source(source="file:x").pinned


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for a gated model without a token, and for other files with their headers."""

    def do_HEAD(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/org/student/"):
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
        else:
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_) -> None:
        """Says nothing."""


@contextlib.contextmanager
def refusing() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()


def test_a_run_ends_before_its_first_job_and_a_dry_run_needs_no_hub(tmp_path):
    make_workflow(tmp_path)
    (tmp_path / "config/mine.yaml").write_text(yaml.safe_dump(configuration(student={"gated": True})))
    with refusing() as server:
        hub = [f"HF_ENDPOINT=http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE=0", f"HF_HOME={tmp_path / 'hf'}"]
        command = ("env", "-u", "HF_TOKEN", *hub, "snakemake", "--cores", "1", "--configfile", "config/mine.yaml")
        dry = run(*command, "-n", cwd=tmp_path)
        assert "Gated on the Hugging Face hub: models.student" in dry.stderr and server.asked == []
        outcome = run(*command, cwd=tmp_path, check=False)
        assert outcome.returncode and "models.student: org/student is gated" in outcome.stderr
        assert "no token is here" in outcome.stderr and "Traceback" not in outcome.stderr
        assert len(server.asked) == 3 and not (tmp_path / "results/store/fetch").exists()
        # Only what a run fetches is asked for.
        server.asked.clear()
        run(*command, "--until", "listing", cwd=tmp_path)
        assert server.asked == []


def test_a_model_in_the_cache_is_fetched_without_a_network(tmp_path):
    """By the hub's own library: the cache as it leaves it, and no network."""
    cache = tmp_path / "hf/hub/models--org--student"
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    script = (
        "import sys; from pathlib import Path; from selfrefine.data.fetching import fetch_model\n"
        "print([path.name for path in fetch_model('hf-model:org/student@main', Path('out'))])"
    )
    found = [f"PYTHONPATH={REPOSITORY / 'scripts'}", f"HF_HOME={tmp_path / 'hf'}", "HF_HUB_OFFLINE=1"]
    told = run("env", *found, "python", "-c", script, cwd=tmp_path).stdout
    assert told.strip() == "['config.json', 'model.safetensors']"
    assert not (tmp_path / "out/model.safetensors").is_symlink()


def test_a_model_that_is_nowhere_is_a_fault_in_one_line(tmp_path, monkeypatch):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(UserError, match="hf-model:org/none@main: the hub is not reached, and its cache lacks"):
        fetch_model("hf-model:org/none@main", tmp_path / "out")
