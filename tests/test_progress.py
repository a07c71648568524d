import time

from selfrefine.progress import running


def test_running_stages_show_their_last_bar_and_finished_ones_do_not(tmp_path):
    now = time.time()
    sample = tmp_path / "sample" / "a.log"
    sample.parent.mkdir()
    bars = [
        "sample paths:   0%|      | 0/72 [00:00<?, ?completion/s]",
        "sample paths:  89%|███ | 64/72 [00:36<00:04,  1.75completion/s, 125 tokens/s]",
    ]
    sample.write_text("Loading weights: 100%|█| 272/272 [00:00<00:00, 10.0it/s]\n" + "\r".join(bars))
    (tmp_path / "evaluate.log").write_text("evaluate: 100%|███| 24/24 [00:21<00:00,  1.12completion/s, 55 tokens/s]\n")
    (tmp_path / "pair.log").write_text("")
    assert running(tmp_path, now - 60) == ["sample/a: 89 % (64 of 72, 00:36<00:04,  1.75completion/s, 125 tokens/s)"]


def test_logs_of_earlier_runs_are_left_out(tmp_path):
    (tmp_path / "old.log").write_text("train:  50%|█| 1/2 [00:01<00:01, 1.0it/s]")
    assert running(tmp_path, time.time() + 10) == []


def test_a_trainers_bar_without_a_title_is_read(tmp_path):
    (tmp_path / "instruct.log").write_text(" 38%|███▊      | 3/8 [00:29<00:44,  8.80s/it]")
    assert running(tmp_path, 0) == ["instruct: 38 % (3 of 8, 00:29<00:44,  8.80s/it)"]
