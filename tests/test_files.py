import hashlib
import json

import pytest

from selfrefine.errors import UserError
from selfrefine.store.files import read_json, read_jsonl, whole_file, write_json, write_jsonl
from selfrefine.store.hashing import canonical_json, digest, sha256_of
from selfrefine.store.journal import Journal
from selfrefine.store.locks import Busy, held


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": {"d": [2, 1], "c": None}}, '{"a":{"c":null,"d":[2,1]},"b":1}'),
        (1e-5, "1e-05"),
        (0.00001, "1e-05"),
        (float("1e-05"), "1e-05"),
        (8.0e-4, "0.0008"),
        (True, "true"),
        ("π", '"π"'),
    ],
)
def test_canonical_json(value, text):
    assert canonical_json(value) == text


def test_canonical_json_keeps_the_order_of_lists():
    assert canonical_json([1, 2]) != canonical_json([2, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_canonical_json_refuses_what_json_cannot_write(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_digest_begins_the_sha256_of_the_canonical_json():
    whole = hashlib.sha256(b'{"a":1,"b":"\xcf\x80"}').hexdigest()
    assert digest({"b": "π", "a": 1}) == whole[:16]
    assert digest({"a": 1, "b": "π"}, length=8) == whole[:8]
    assert digest({"a": 2, "b": "π"}) != whole[:16]


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_whole_file_appears_at_the_end_and_makes_its_folder(tmp_path):
    path = tmp_path / "deep" / "er" / "out.txt"
    with whole_file(path) as file:
        file.write("naïve\n")
        assert not path.exists()
    assert path.read_bytes() == "naïve\n".encode()
    assert names_in(path.parent) == ["out.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old"])
def test_whole_file_leaves_nothing_behind_on_an_error_and_keeps_the_old_file(error, before, tmp_path):
    path = tmp_path / "out.txt"
    if before:
        path.write_text(before)
    with pytest.raises(error), whole_file(path) as file:
        file.write("half of it")
        raise error
    assert names_in(tmp_path) == (["out.txt"] if before else [])
    assert not before or path.read_text() == before


def test_whole_file_replaces_the_old_file(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"longer than the new one")
    with whole_file(path, "wb") as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_whole_file_names_the_file_that_cannot_be_written(tmp_path):
    (tmp_path / "out.txt").mkdir()
    with (
        pytest.raises(UserError, match=r"out\.txt: could not be written: Is a directory"),
        whole_file(tmp_path / "out.txt") as file,
    ):
        file.write("x")
    assert names_in(tmp_path) == ["out.txt"]


def test_whole_file_does_not_take_the_blame_for_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "out.txt"):
        (tmp_path / "missing").read_text()


def test_a_lock_is_one_processs_alone_and_gone_afterwards(tmp_path):
    path = tmp_path / "deep" / ".lock"
    with held(path):
        for _ in range(2):
            with pytest.raises(Busy, match=r"deep/\.lock$"), held(path, wait=False):
                pytest.fail("two hold it")
        assert names_in(path.parent) == [".lock"]
        with held(tmp_path / "deep" / ".other", wait=False):
            pass
    assert names_in(path.parent) == []
    with pytest.raises(ZeroDivisionError), held(path, wait=False):
        raise ZeroDivisionError
    with held(path, wait=False):
        pass


def test_json_lines_are_read_as_they_were_written(tmp_path):
    rows = [{"text": "two\nlines and \u2028 π", "n": 1}, {}, {"n": 1e-5}]
    write_jsonl(tmp_path / "rows.jsonl", iter(rows))
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert len((tmp_path / "rows.jsonl").read_bytes().split(b"\n")) == 4


def test_rows_that_fail_half_way_leave_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"n": 1}])
    with pytest.raises(ZeroDivisionError):
        write_jsonl(path, ({"n": 1 / n} for n in (2, 1, 0)))
    assert read_jsonl(path) == [{"n": 1}]
    assert names_in(tmp_path) == ["rows.jsonl"]


def test_json_is_read_as_it_was_written(tmp_path):
    write_json(tmp_path / "a.json", {"b": ["ü", None], "a": 1})
    assert read_json(tmp_path / "a.json") == {"b": ["ü", None], "a": 1}
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": [\n    "ü",\n    null\n  ],\n  "a": 1\n}\n'


@pytest.mark.parametrize("write", [write_json, lambda path, value: write_jsonl(path, [value])])
def test_not_a_number_is_never_written(write, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a", {"loss": float("nan")})
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": 2\n{"a": 3}\n', "rows.jsonl:2: not valid JSON"),
        (b'{"a": 1}\n\n{"a": 3}\n', "rows.jsonl:2: not valid JSON"),
        (b'{"a": 1}\n{"a": "caf\xe9"}\n', "rows.jsonl:2: not valid UTF-8 at byte 10 of the line"),
        (b'{"a": 1}\n{"a": 2}\n[3]\n', "rows.jsonl:3: expected a JSON object, found list"),
        (b"1\n", "rows.jsonl:1: expected a JSON object, found int"),
        (b'{"a": 1}\n{"a": 2}\n{"a": ', "rows.jsonl:3: not valid JSON (Expecting value) and the line has no end"),
        (b'{"a": 1}\n{"a": "\xc3', "rows.jsonl:2: not valid UTF-8"),
    ],
)
def test_faulty_json_lines_are_named_by_line(content, message, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_jsonl(tmp_path / "rows.jsonl")
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_faulty_line_within_a_file_is_not_called_cut_off(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": \n{"a": 1}\n')
    with pytest.raises(UserError) as caught:
        read_jsonl(tmp_path / "rows.jsonl")
    assert "cut off" not in str(caught.value)


def test_last_line_may_go_without_its_end(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n{"a": 2}')
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("read", [read_json, read_jsonl])
def test_missing_file_is_named(read, tmp_path):
    with pytest.raises(UserError, match="gone: no such file"):
        read(tmp_path / "gone")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": 1,\n}', "a.json:2: not valid JSON"), (b'{"a": "\xff"}', "a.json: not valid UTF-8 at byte 7")],
)
def test_faulty_json_is_named_by_place(content, message, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


GROUPS = [[{"id": "1"}, {"id": "2", "text": "two\nlines π"}], [], [{"id": "3"}]]


def kept(tmp_path) -> Journal:
    journal = Journal(tmp_path / "deep" / "out.jsonl")
    for group in GROUPS:
        journal.append(group)
    return journal


def test_journal_keeps_groups_beside_the_output(tmp_path):
    journal = kept(tmp_path)
    assert names_in(tmp_path / "deep") == ["out.jsonl.partial"]
    assert journal.read() == GROUPS
    assert Journal(tmp_path / "deep" / "out.jsonl").read() == GROUPS


def test_journal_without_a_file_is_empty(tmp_path):
    assert Journal(tmp_path / "out.jsonl").read() == []
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "torn",
    [
        json.dumps([{"id": "4"}]).encode(),
        json.dumps([{"id": "4"}]).encode()[:-3],
        b"[",
        '[{"id": "π'.encode()[:-1],
        b"\x00\x00\x00\x00",
    ],
)
def test_journal_drops_a_torn_last_line_and_goes_on_after_it(torn, tmp_path):
    journal = kept(tmp_path)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + torn)
    assert journal.read() == GROUPS
    assert journal.path.read_bytes() == whole
    journal.append([{"id": "5"}])
    assert journal.read() == [*GROUPS, [{"id": "5"}]]


def test_journal_torn_at_every_byte_gives_back_finished_groups_only(tmp_path):
    journal = kept(tmp_path)
    whole = journal.path.read_bytes()
    for length in range(len(whole) + 1):
        journal.path.write_bytes(whole[:length])
        finished = whole[:length].count(b"\n")
        assert journal.read() == GROUPS[:finished]
        assert journal.path.read_bytes() == b"".join(line + b"\n" for line in whole.split(b"\n")[:finished])


def test_journal_drops_what_follows_a_damaged_line(tmp_path):
    journal = kept(tmp_path)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + b"damaged\n" + lines[2])
    assert journal.read() == GROUPS[:1]
    assert journal.path.read_bytes() == lines[0]


def test_journal_is_removed(tmp_path):
    journal = kept(tmp_path)
    journal.remove()
    assert names_in(tmp_path / "deep") == []
    journal.remove()
    assert journal.read() == []


def test_journal_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out.jsonl.partial").mkdir()
    with pytest.raises(UserError, match=r"out\.jsonl\.partial: could not be written"):
        Journal(tmp_path / "out.jsonl").append([{"id": "1"}])
