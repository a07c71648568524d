"""The openai engine with a failing server: nothing is lost or asked twice, limits hold, no key shows."""

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, make_study, run, snakemake
from faulty_server import FaultyServer, answer_to, mixed
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.openai import retries
from selfrefine.engines.openai.answer_store import AnswerStore
from selfrefine.engines.openai.bodies import Malformed, answer_of
from selfrefine.engines.openai.cost_estimate import estimate, read_asked
from selfrefine.engines.openai.server_engine import ServerEngine
from selfrefine.engines.openai.token_counts import most
from selfrefine.errors import UserError
from selfrefine.schema.generation import Generation
from selfrefine.schema.server import Budget, Prices, Server
from selfrefine.store.files import read_json, read_jsonl, write_json, write_jsonl
from selfrefine.study.design import Study
from selfrefine.study.open_study import open_study

KEY = "sk-planted-0123456789abcdefghijklmnopqrstuv"
ASKING = {
    "engine": "openai",
    "served": "owl-1",
    "prompt": {"instruction": "Choose."},
    "generation": {"max_tokens": 20},
}


@pytest.fixture
def quick(monkeypatch):
    """Delays of a test, not of a night."""
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(retries, "LONGEST_DELAY", 0.1)


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def requests(count, temperature=0.0, max_tokens=40):
    generation = Generation(max_tokens=max_tokens, temperature=temperature)
    return [
        Request(f"q{i}", [{"role": "user", "content": f"Question {i}: which box?"}], generation, i)
        for i in range(count)
    ]


def engine_for(server, folder, key=KEY, **settings):
    chosen = {"concurrency": 16, "timeout": 2, "patience": 20, "store": str(folder / "store"), **settings}
    return ServerEngine(Server(endpoint=server.endpoint, **chosen), "owl-1", key=key)


def kept(engine):
    """The engine's store as it lies on the disk."""
    store = AnswerStore(engine.store.folder.parent, engine.identity)
    store.read()
    return store


def right(wanted, found):
    return [completion.text for completion in found] == [answer_to(r.messages[0]["content"]) for r in wanted]


def showing_key(*folders):
    """The files that hold the key or a large part of it."""
    parts = (KEY.encode(), KEY[3:20].encode(), KEY[-16:].encode())
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(part in path.read_bytes() for part in parts)]


# A server that fails.


def test_a_faulty_server_loses_nothing_and_is_asked_for_nothing_twice(tmp_path, quick, capsys):
    wanted = requests(1500)
    with FaultyServer(mixed(0, 0.06, every=600), delay=0.002) as server:
        # Long enough that on a busy machine no answer comes after the client has given it up.
        engine = engine_for(server, tmp_path, concurrency=32, timeout=4)
        found = engine.generate(wanted)
        assert right(wanted, found)
        assert set(server.answered.values()) == {1} and len(server.answered) == len(wanted)
        assert server.too_early == 0
        assert set(server.events) > {"hang", "cut JSON", "dropped", "reset", "HTML", "500", "429 seconds", "429 date"}
        # What the server charged for and could not deliver is counted, and charged to the budget at its most.
        store = kept(engine)
        assert store.lost == sum(server.lost.values()) > 0
        assert store.spent.total >= server.tokens
        assert (store.spent, store.lost) == (engine.store.spent, engine.events["lost"])
        asked = len(server.times)
        assert engine_for(server, tmp_path).generate(wanted) == found
        assert len(server.times) == asked
    assert KEY not in capsys.readouterr().err
    assert not showing_key(tmp_path)


def test_one_question_under_several_ids_is_asked_once(tmp_path):
    twice = [Request(f"copy-{i}", requests(1)[0].messages, Generation()) for i in range(3)]
    with FaultyServer() as server:
        assert len(set(engine_for(server, tmp_path).generate(twice))) == 1
        assert server.charged == 1


def test_settings_are_sent_and_seeds_where_something_is_drawn(tmp_path):
    with FaultyServer() as server:
        engine_for(server, tmp_path).generate(requests(2, temperature=0.7) + requests(1))
        drawn = [body for body in server.bodies if body["temperature"]]
        assert sorted(body["seed"] for body in drawn) == [0, 1]
        (greedy,) = [body for body in server.bodies if not body["temperature"]]
        assert not {"seed", "top_p"} & greedy.keys() and (greedy["max_tokens"], greedy["model"]) == (40, "owl-1")
        assert server.keys == {KEY}


def test_concurrency_is_what_was_asked_for(tmp_path):
    with FaultyServer(delay=0.02) as server:
        engine_for(server, tmp_path, concurrency=5).generate(requests(60))
        assert server.most_in_flight == 5


def test_requests_per_minute_hold_from_the_first_second(tmp_path):
    with FaultyServer() as server:
        engine_for(server, tmp_path, requests_per_minute=1200).generate(requests(30))
        assert 29 / 20 * 0.95 < max(server.times) - min(server.times) < 3


def test_tokens_per_minute_count_what_was_used(tmp_path):
    need = most(requests(1)[0]).total
    with FaultyServer() as server:
        engine_for(server, tmp_path, concurrency=1, tokens_per_minute=600 * need).generate(requests(30))
        used = server.tokens / 30
        # By what each can take at most it would be 2.9 s; what was not used is given back.
        assert 29 * used / (10 * need) * 0.9 < max(server.times) - min(server.times) < 2.5


def test_every_request_waits_for_what_retry_after_says(tmp_path, quick):
    first = (1, "Question 0: which box?")
    plan = lambda question, attempt: "429 seconds" if (attempt, question) == first else ""  # noqa: E731
    with FaultyServer(plan, delay=0.02) as server:
        engine_for(server, tmp_path, concurrency=2).generate(requests(40))
        times = sorted(server.times)
        gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
        assert server.too_early == 0 and max(gaps) > 0.9


def test_a_wait_beyond_patience_ends_the_run_with_its_length(tmp_path, quick):
    with FaultyServer(lambda question, attempt: "429 seconds") as server:
        with pytest.raises(
            UserError, match=r"status 429, to be asked again in 1 s, which is more than server.patience"
        ):
            engine_for(server, tmp_path, patience=0.5).generate(requests(3))
        assert len(server.times) <= 3


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("400", r"refused q\d+ \(status 400\): told with \[key\].*change the teacher's generation"),
        ("401", r"refused the key in \$OPENAI_API_KEY \(status 401\); set the variable"),
        ("402", "has no credit left"),
        ("403", r"forbids the request \(status 403\): told with \[key\]"),
        ("404", "no model 'owl-1' \\(status 404\\)"),
        ("307", r"redirects elsewhere \(status 307\); set server.endpoint"),
    ],
)
def test_what_no_repetition_mends_ends_the_run_at_once(tmp_path, status, message, capsys):
    plan = lambda question, attempt: status if question.startswith("Question 7:") else ""  # noqa: E731
    with FaultyServer(plan, delay=0.01) as server:
        engine = engine_for(server, tmp_path, concurrency=4)
        with pytest.raises(UserError, match=message) as caught:
            engine.generate(requests(200))
        assert max(server.attempts.values()) == 1
        # What came before, and what was in flight, is kept.
        assert len(kept(engine).answers) == len(server.answered) in range(1, 30) and kept(engine).lost == 0
    for text in (str(caught.value), capsys.readouterr().err):
        assert not any(part in text for part in (KEY, KEY[3:], KEY[:20]))
    assert not showing_key(tmp_path)


def test_a_server_that_wants_a_key_says_so_where_none_is_set(tmp_path):
    with (
        FaultyServer(lambda question, attempt: "401") as server,
        pytest.raises(UserError, match=r"wants a key, and \$OPENAI_API_KEY is not set"),
    ):
        engine_for(server, tmp_path, key=None).generate(requests(1))


def test_a_key_that_cannot_be_one_is_refused_without_showing_it():
    with pytest.raises(UserError, match=r"\$OPENAI_API_KEY: the API key in it holds characters") as caught:
        ServerEngine(Server(), "owl-1", key=f"{KEY}\nHost: elsewhere")
    assert KEY not in str(caught.value)


def test_an_answer_that_repeats_the_key_is_kept_without_it(tmp_path):
    with FaultyServer(lambda question, attempt: "repeats the key") as server:
        engine_for(server, tmp_path).generate(requests(2))
    assert not showing_key(tmp_path)


def test_a_server_that_is_down_ends_the_run_after_its_patience(tmp_path, quick):
    with FaultyServer() as server:
        pass
    started = time.time()
    with pytest.raises(UserError, match=r"no answer for 1 s, q\d+: no connection .*0 of 50 are answered.*run again"):
        engine_for(server, tmp_path, patience=1).generate(requests(50))
    assert time.time() - started < 4


def test_a_request_that_never_succeeds_does_not_keep_the_others_from_it(tmp_path, quick):
    plan = lambda question, attempt: "500" if question.startswith("Question 3:") else ""  # noqa: E731
    with FaultyServer(plan, delay=0.02) as server:
        engine = engine_for(server, tmp_path, concurrency=2, patience=0.3)
        with pytest.raises(UserError, match=r"1 of 60 requests got no answer within 0.3 s, q3 first \(status 500\)"):
            engine.generate(requests(60))
        assert len(server.answered) == 59
        server.plan = lambda question, attempt: ""
        assert right(requests(60), engine_for(server, tmp_path).generate(requests(60)))
        assert set(server.answered.values()) == {1}


def test_patience_counts_from_the_first_failure_not_from_the_wait_for_a_slot(tmp_path, quick):
    with FaultyServer(lambda question, attempt: "500" if attempt == 1 else "") as server:
        engine = engine_for(server, tmp_path, concurrency=4, requests_per_minute=300, patience=0.3)
        assert right(requests(4), engine.generate(requests(4)))
        assert max(server.times) - min(server.times) > 4 * 0.2


def test_a_newer_server_is_asked_with_the_newer_name_of_the_limit(tmp_path):
    with FaultyServer() as server:
        server.newer_field = True
        engine_for(server, tmp_path, concurrency=2).generate(requests(20))
        assert sum("max_tokens" in body for body in server.bodies) <= 2
        assert len(server.answered) == 20


# What answers say.


def test_answers_without_text_are_kept_counted_and_empty(tmp_path):
    kinds = ["empty", "null", "tool_calls", "content_filter", "no usage", "length", "reasoning", "parts"]
    wanted = requests(len(kinds))
    with FaultyServer(lambda question, attempt: kinds[int(question.split()[1][:-1])]) as server:
        engine = engine_for(server, tmp_path)
        found = engine.generate(wanted)
        assert server.charged == len(kinds)
    assert [completion.text for completion in found[:4]] == [""] * 4
    assert right(wanted[4:], found[4:])
    assert [completion.finish_reason for completion in found] == ["stop"] * 5 + ["length"] + ["stop"] * 2
    report = engine.report(wanted)
    assert report["unusable"] == {"content_filter": 1, "empty": 2, "tool_calls": 1}
    assert report["without_usage"] == 1 and report["answered_by"] == {"owl-1-0801": 8}
    assert report["tokens_made"] == sum(completion.tokens for completion in found) and not report["tokens_replayed"]


def test_reasons_to_end_are_read_as_servers_write_them():
    request = requests(1, max_tokens=5)[0]

    def read(reason, tokens=3, **message):
        choice = {"message": {"content": "text", **message}, "finish_reason": reason}
        return answer_of(request, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": tokens}})

    reasons = [
        ("stop", 3),
        ("eos_token", 3),
        ("length", 3),
        ("max_tokens", 3),
        (None, 3),
        (None, 5),
        ("odd", 5),
        ("stop", 5),
    ]
    expected = ["stop", "stop", "length", "length", "stop", "length", "length", "stop"]
    assert [Completion.of(read(*one)).finish_reason for one in reasons] == expected
    assert read("stop", content=None, refusal="I will not")["unusable"] == "refusal"
    for body in ({}, {"choices": None}, {"choices": [{}]}, {"choices": [{"message": None}]}, [], "text"):
        with pytest.raises(Malformed):
            answer_of(request, body)


# The store.


def test_torn_lines_and_answers_without_end_are_harmless(tmp_path):
    with FaultyServer() as server:
        wanted = requests(20)
        engine = engine_for(server, tmp_path)
        found = engine.generate(wanted)
        (path,) = engine.store.folder.glob("*.jsonl")
        path.write_bytes(path.read_bytes()[:-40])
        (engine.store.folder / "0-other.jsonl").write_bytes(b'{"key": "torn')
        assert engine_for(server, tmp_path).generate(wanted) == found
        assert sorted(server.answered.values()) == [1] * 19 + [2]


def test_other_models_revisions_and_fields_have_answers_of_their_own(tmp_path):
    with FaultyServer() as server:
        settings = Server(endpoint=server.endpoint, store=str(tmp_path / "store"))
        for engine in (
            ServerEngine(settings, "owl-1"),
            ServerEngine(settings, "owl/1"),
            ServerEngine(settings, "owl-1", revision="q4"),
            ServerEngine(settings, "owl-1", extra={"reasoning_effort": "low"}),
        ):
            engine.generate(requests(1))
        assert server.charged == len(list((tmp_path / "store").iterdir())) == 4
        assert [body.get("reasoning_effort") for body in server.bodies] == [None, None, None, "low"]
        ServerEngine(settings, "owl-1").generate(requests(1))
        assert server.charged == 4


def write_items(path, count):
    rows = [
        {"id": f"{i:08x}", "kind": "choice", "question": f"Box {i}?", "choices": ["red", "blue"], "answer": "A"}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def teach(folder, server, count, name="out"):
    """Starts scripts/teach.py over `count` items; the artifact's folder has the name."""
    items = write_items(folder / "items.jsonl", count)
    settings = {"endpoint": server.endpoint, "concurrency": 8, "store": str(folder / "store")}
    command = [sys.executable, "scripts/teach.py", "--settings", json.dumps(ASKING), "--server", json.dumps(settings)]
    command += ["--items", items, "--record", folder / name / "record.json"]
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen([str(part) for part in command], cwd=REPOSITORY, stderr=log, stdout=log)


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "it did not happen in time"
        time.sleep(0.01)


def test_after_kills_only_what_was_in_flight_is_asked_again(tmp_path, planted):
    draw = random.Random(1)
    with FaultyServer(delay=0.03) as server:
        for _ in range(3):
            process = teach(tmp_path, server, 300)
            enough = len(server.answered) + draw.randint(20, 60)
            wait_for(lambda enough=enough: len(server.answered) > enough)
            process.kill()
            process.wait()
        assert teach(tmp_path, server, 300).wait() == 0
        # The server had sent, or was about to send, what was in flight at a kill: at most 8 answers a kill.
        repeated = sum(server.answered.values()) - 300
        assert len(server.answered) == 300 and repeated <= 3 * 8
    record = read_json(tmp_path / "out/record.json")
    store = AnswerStore(tmp_path / "store", record["figures"]["engine"])
    store.read()
    assert len(store.answers) == 300 and repeated <= store.lost <= 3 * 8
    assert record["figures"]["tokens_replayed"] > 0
    # Neither the key nor anything that shapes no answer is in the record.
    assert record["figures"]["engine"] == {"engine": "openai", "served": "owl-1", "revision": "", "extra": {}}
    assert not any(part in json.dumps(record) for part in (server.endpoint, "concurrency", "key_variable"))
    assert not showing_key(tmp_path)


def test_an_interrupt_lets_the_requests_in_flight_be_answered(tmp_path, planted):
    with FaultyServer(delay=0.1) as server:
        process = teach(tmp_path, server, 300)
        wait_for(lambda: len(server.answered) > 20)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert b"run again to go on" in (tmp_path / "out.log").read_bytes()
        assert len(server.answered) < 300
        assert teach(tmp_path, server, 300).wait() == 0
        assert sorted(server.answered.values()) == [1] * 300


def test_two_processes_on_one_store_ask_for_nothing_twice(tmp_path, planted):
    with FaultyServer(delay=0.01) as server:
        both = [teach(tmp_path, server, 300, name) for name in ("one", "two")]
        assert [process.wait() for process in both] == [0, 0]
        assert sorted(server.answered.values()) == [1] * 300
        assert server.most_in_flight <= 8
    assert (tmp_path / "one/answers.jsonl").read_bytes() == (tmp_path / "two/answers.jsonl").read_bytes()
    assert len(list((tmp_path / "store").glob("*/*.jsonl"))) == 1


def test_a_journal_of_the_stage_is_gone_on_from_as_well(tmp_path):
    with FaultyServer() as server:
        wanted = requests(10)
        done = complete(engine_for(server, tmp_path), wanted, tmp_path / "out.jsonl", "test")
        engine = engine_for(server, tmp_path)
        assert complete(engine, wanted, tmp_path / "out.jsonl", "test") == done
        assert server.charged == 10
        assert engine.report(wanted)["tokens_replayed"] == sum(one.tokens for one in done.values())


# Budgets.


@pytest.mark.parametrize("budget", [{"tokens": 3000}, {"money": 0.004, "prices": {"input": 1.0, "output": 3.0}}])
def test_a_budget_is_never_exceeded_and_counts_all_runs(tmp_path, quick, budget):
    price = Prices(**budget.get("prices", {"input": 1, "output": 1}))
    wanted = requests(200)
    with FaultyServer(mixed(2, 0.05), delay=0.005) as server:
        for _ in range(2):
            engine = engine_for(server, tmp_path, budget=Budget(**budget))
            with pytest.raises(UserError, match=r"budget ends here: spent .* \d+ of \d+ requests are left to ask"):
                engine.generate(wanted)
        spent, need = kept(engine).spent, most(wanted[-1])
        limit = budget.get("tokens") or budget["money"] * 1e6
        used, next_one = (price.of(one.prompt, one.made) * 1e6 for one in (spent, need))
        # No request more would have fitted, and none too many was sent.
        assert limit - next_one <= used <= limit
        assert server.tokens <= spent.total and 0 < len(server.answered) < 200
        assert right(wanted, engine_for(server, tmp_path).generate(wanted))
        assert set(server.answered.values()) == {1}


# In a study.


def served_study(tiny_model, folder, server, **settings):
    """The tiny study with its teacher behind a server."""
    folder.mkdir()
    path, config = make_study(folder, tiny_model)
    (folder / "oracle.jsonl").unlink()
    entry = config["teachers"]["oracle"]
    entry |= {
        "engine": "openai",
        "served": "owl-1",
        "server": {"endpoint": server.endpoint, "concurrency": 4} | settings,
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path, config


def test_a_study_asks_a_server_and_a_second_one_finds_the_answers(tiny_model, tmp_path, planted):
    first, second = tmp_path / "first", tmp_path / "second"
    store = str(tmp_path / "shared")
    plan = lambda question, attempt: "500" if attempt == 1 and len(question) % 7 == 0 else ""  # noqa: E731
    with FaultyServer(plan, delay=0.005, text=lambda question: f"The answer is {'AB'[len(question) % 2]}.") as server:
        path, config = served_study(tiny_model, first, server, store=store)
        estimated = snakemake(first, "estimate").stdout
        asked = int(estimated.split("oracle (owl-1): ")[1].split(" ")[0])
        assert f"{asked} of {asked} requests are not answered yet" in estimated and not server.times
        snakemake(first)
        assert (first / "results/tiny/summary.md").exists()
        assert sorted(server.answered.values()) == [1] * asked
        assert "teacher,oracle,served:owl-1,," in (first / "results/tiny/tables/sources.csv").read_text()
        batch = ("--teacher", "oracle", "--configfile", "config/tiny.yaml", "--output", "batch.jsonl")
        told = run("python", "scripts/study.py", "batch", "export", *batch, cwd=first).stdout
        assert "every request is answered" in told and not (first / "batch.jsonl").exists()

        # What does not shape an answer reruns nothing; what does is asked again.
        entry = config["teachers"]["oracle"]
        entry["server"] |= {
            "concurrency": 2,
            "timeout": 9,
            "endpoint": "http://127.0.0.1:9/v1",
            "key_variable": "OTHER",
        }
        entry["server"]["budget"] = {"tokens": 10}
        entry["batch_size"] = 3
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        planned = snakemake(first, "-n").stdout
        assert "rule ask:" not in planned and "rule demonstrate:" not in planned
        entry["revision"] = "another"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        assert snakemake(first, "-n").stdout.count("rule ask:") == 3

        sent = len(server.times)
        served_study(tiny_model, second, server, store=store)
        with contextlib.chdir(second):
            made = open_study([Path("config/tiny.yaml")]).artifacts
            answers, items = made.answers("oracle", "boxes", "train", "cot"), made.items("boxes", "train").record
            wanted = (made.demonstrations("oracle", "boxes"), made.answers("oracle", "far", "test", "cot"))
            records = [one.record for one in wanted]
        snakemake(second, *records)
        assert len(server.times) == sent
    # Which store is asked, and how, stands in no key.
    assert (first / answers.file).read_bytes() == (second / answers.file).read_bytes()
    assert not showing_key(first / "results", first / "logs", second / "results", second / "logs", tmp_path / "shared")

    # The answers can be recorded, and replayed where there is no store.
    recording = tmp_path / "recording.jsonl"
    live = sorted(first.glob("results/store/teach/oracle/*-cot/*/record.json"))
    run("python", "scripts/study.py", "record", "--teacher", "oracle", "--answers", *live, "--output", recording)
    header, *rows = read_jsonl(recording)
    assert header["recording"]["source"] == "served:owl-1" and len(rows) == asked

    # A recording that is there is added to; what it answers already stays, and another teacher's is refused.
    added = tmp_path / "added.jsonl"
    kept = [{**row, "text": "kept"} for row in rows[: asked // 2]]
    write_jsonl(added, [{"recording": header["recording"] | {"runs": ["earlier"]}}, *kept])
    again = ("python", "scripts/study.py", "record", "--answers", *live, "--output", added, "--teacher")
    told = run(*again, "oracle").stdout
    assert told == f"{added}: {asked} completions of oracle, {asked - len(kept)} of them new\n"
    first_line, *both = read_jsonl(added)
    assert both == [*kept, *rows[len(kept) :]]
    assert first_line["recording"]["runs"] == ["earlier", *header["recording"]["runs"]]
    refused = run(*again, "sage", check=False)
    assert "has answers of another teacher, 'oracle', not 'sage'" in refused.stderr
    assert [first_line, *both] == read_jsonl(added)
    replayed = read_json(first / answers.record)["settings"] | {"engine": "recorded"}
    run(
        *("python", "scripts/teach.py", "--settings", json.dumps(replayed), "--recording", recording),
        *("--items", first / items, "--record", tmp_path / "replayed/record.json"),
    )
    assert (tmp_path / "replayed/answers.jsonl").read_bytes() == (first / answers.file).read_bytes()


def shipped(**changes):
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    for name in ("benchmarks", "recipes"):
        config |= yaml.safe_load((REPOSITORY / f"config/{name}.yaml").read_text())
    name = config["study"]["teachers"][0]
    config["teachers"][name] |= {"engine": "openai", "served": "owl-1"} | changes
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"served": None}, "engine openai needs the key 'served'"),
        ({"extra": {"seed": 1}}, "extra: seed: set by the engine"),
        ({"server": {"budget": {"money": 5}}}, "budget: money needs prices"),
        ({"server": {"endpoint": "127.0.0.1:80"}}, "endpoint: must be an address such as"),
        ({"server": {"endpoint": f"https://me:{KEY}@host/v1"}}, "endpoint: must hold no credentials"),
        ({"server": {"key_variable": KEY}}, "key_variable: String should match pattern"),
        ({"server": {"api_key": KEY}}, "api_key: unknown key"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_keys_not_shown(changes, message):
    assert Study.read(shipped()).served()
    with pytest.raises(UserError) as caught:
        Study.read(shipped(**changes))
    assert message in str(caught.value)
    assert KEY not in str(caught.value)


# Estimates and batches.


def asked_file(folder, endpoint="http://127.0.0.1:9/v1"):
    items = write_items(folder / "items.jsonl", 12)
    settings = {
        "endpoint": endpoint,
        "store": str(folder / "store"),
        "budget": {"prices": {"input": 2.0, "output": 8.0}},
    }
    write_json(folder / "asked.json", [{"teacher": "owl", "items": str(items), "settings": ASKING, "server": settings}])
    return folder / "asked.json"


def test_an_estimate_counts_what_is_missing_and_learns_from_the_store(tmp_path):
    with FaultyServer() as server:
        path = asked_file(tmp_path, server.endpoint)
        (asked,) = read_asked(path)
        before = estimate(asked)
        assert (before["missing"], before["made"], before["measured"]) == (12, 240, 0)
        asked.engine.generate(asked.requests[:8])
        after = estimate(*read_asked(path))
        assert (after["missing"], after["measured"]) == (4, 8)
        told = run("python", "scripts/study.py", "estimate", "--asked", path).stdout
        assert "4 of 12 requests are not answered yet" in told and "in money" in told
        assert len(server.times) == 8
        asked.engine.generate(asked.requests)
        # What was likely is what it came to, for these prompts are alike.
        spent = kept(asked.engine).spent.total - after["spent"].total
        assert abs(spent - after["prompt"] - after["made"]) <= 8


def test_a_batch_goes_out_and_its_answers_come_back_into_the_store(tmp_path):
    path = asked_file(tmp_path)
    common = ("--teacher", "owl", "--asked", path)
    run("python", "scripts/study.py", "batch", "export", *common, "--output", tmp_path / "batch.jsonl")
    rows = read_jsonl(tmp_path / "batch.jsonl")
    assert len(rows) == 12 and {row["method"] for row in rows} == {"POST"}
    assert rows[0]["body"]["max_completion_tokens"] == 20 and rows[0]["body"]["model"] == "owl-1"

    def answered(row, **response):
        choice = {"message": {"content": "The answer is A."}, "finish_reason": "stop"}
        body = {"model": "owl-1", "choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": 6}}
        return {"custom_id": row["custom_id"], "response": {"status_code": 200, "body": body} | response, "error": None}

    late = {
        "custom_id": rows[1]["custom_id"],
        "response": None,
        "error": {"code": "batch_expired", "message": "too late"},
    }
    bad = answered(rows[2], status_code=500, body={"error": {"message": "broken"}})
    lines = [answered(row) for row in rows[3:]] + [late, bad, {"custom_id": "stranger"}, answered(rows[5])]
    (tmp_path / "output.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    taken = run("python", "scripts/study.py", "batch", "import", *common, tmp_path / "output.jsonl", check=False)
    assert taken.returncode == 1
    assert "9 taken, 1 not of this study, 1 known already; 3 requests are not answered yet" in taken.stdout
    assert "output.jsonl:10: 00000001-cot-0: no response: batch_expired too late" in taken.stderr
    assert "output.jsonl:11: 00000002-cot-0: status 500: broken" in taken.stderr
    run("python", "scripts/study.py", "batch", "export", *common, "--output", tmp_path / "rest.jsonl")
    assert [row["custom_id"] for row in read_jsonl(tmp_path / "rest.jsonl")] == [row["custom_id"] for row in rows[:3]]
    (asked,) = read_asked(path)
    assert asked.engine.store.spent.total == 9 * 36


# A server that others wrote.


def test_transformers_serve_answers_as_the_model_does(tiny_model, tmp_path):
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="transformers serve needs the packages fastapi, uvicorn and openai")
    from selfrefine.engines.transformers import TransformersEngine
    from selfrefine.models.checkpoints import load_model, load_tokenizer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    options = ["serve", str(tiny_model), "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", program, *options], stdout=log, stderr=log)
    try:

        def is_up():
            assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                return answer.status == 200

        wait_for(is_up, 300)
        server = Server(endpoint=f"http://127.0.0.1:{port}/v1", store=str(tmp_path / "store"), concurrency=2)
        wanted = requests(12, max_tokens=12)
        engine = ServerEngine(server, str(tiny_model))
        served = engine.generate(wanted)
    finally:
        process.terminate()
        process.wait()
    local = TransformersEngine(load_model(tiny_model, "float32"), load_tokenizer(tiny_model), {}, 4)
    expected = {
        r.id: answer for batch in local.batches(wanted) for r, answer in zip(batch, local.generate(batch), strict=True)
    }
    assert [answer.text for answer in served] == [expected[request.id].text for request in wanted]
    assert [answer.prompt_tokens for answer in served] == [expected[request.id].prompt_tokens for request in wanted]
    assert engine.report(wanted)["without_usage"] == 0
