"""config/originals.yaml: records as the authors' own files have them become items, by YAML alone."""

import json

import pytest
import yaml

from conftest import REPOSITORY
from selfrefine.data.splits import read_pool
from selfrefine.schema.benchmark import Benchmark, Mapping
from selfrefine.schema.stages import PrepareSettings

ORIGINALS = yaml.safe_load((REPOSITORY / "config/originals.yaml").read_text())["benchmarks"]
PLACES = [
    {"label": label, "text": text}
    for label, text in zip("ABCDE", ("bank", "library", "mall", "park", "zoo"), strict=True)
]
NUMBERED = [{"label": str(i), "text": text} for i, text in enumerate(("ice", "steam", "fog", "snow"), 1)]
COLOURS = (
    "On the desk, you see a red pen and a teal cup. What color is the cup?\nOptions:\n(A) red\n(B) teal\n(C) mauve"
)


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# By benchmark: a file in its original form, and the items in it: (question, options, answer).
FILES = {
    "csqa-original": (
        lines(
            {
                "answerKey": "A",
                "id": "1afa02df02c908a558b4036e80242fac",
                "question": {"question_concept": "money", "choices": PLACES, "stem": "Where do people keep money?"},
            }
        ),
        [("Where do people keep money?", ["bank", "library", "mall", "park", "zoo"], "A")],
    ),
    "obqa-original": (
        lines({"id": "7-980", "question": {"stem": "Cold water becomes", "choices": PLACES[:4]}, "answerKey": "D"}),
        [("Cold water becomes", ["bank", "library", "mall", "park"], "D")],
    ),
    "arc-original": (
        lines({"id": "MCAS_1", "question": {"stem": "Boiling water becomes", "choices": NUMBERED}, "answerKey": "2"}),
        [("Boiling water becomes", ["ice", "steam", "fog", "snow"], "B")],
    ),
    "strategyqa-original": (
        json.dumps(
            [
                {
                    "qid": "872bbeac672d7e38ae9f",
                    "term": "Ice",
                    "question": "Is ice warm?",
                    "answer": False,
                    "facts": ["Ice is frozen water."],
                    "decomposition": ["How warm is ice?"],
                    "evidence": [[["no_evidence"]]],
                }
            ]
        ),
        [("Is ice warm?", ["yes", "no"], "B")],
    ),
    "boolq-original": (
        lines({"question": "is ice cold", "title": "Ice", "answer": True, "passage": "Ice is frozen water."}),
        [("Ice is frozen water. is ice cold?", ["yes", "no"], "A")],
    ),
    "aqua-original": (
        lines(
            {
                "question": "A car is being driven at 20 km/h. How far does it go in 3 hours?",
                "options": ["A)20 km", "B)40 km", "C)60 km", "D)80 km", "E)None of these"],
                "rationale": "20 x 3 = 60.\nC",
                "correct": "C",
            }
        ),
        [
            (
                "A car is being driven at 20 km/h. How far does it go in 3 hours?",
                ["20 km", "40 km", "60 km", "80 km", "None of these"],
                "C",
            )
        ],
    ),
    "gsm8k-original": (
        lines({"question": "Ann has 3 boxes of 400. How many?", "answer": "3*400 = <<3*400=1200>>1200\n#### 1,200"}),
        [("Ann has 3 boxes of 400. How many?", [], "1200")],
    ),
    "svamp-original": (
        json.dumps(
            [
                {
                    "ID": "chal-1",
                    "Body": "Each pack costs 76 dollars.",
                    "Question": "How much do you pay with 25 dollars off?",
                    "Equation": "( 76.0 - 25.0 )",
                    "Answer": 51.0,
                    "Type": "Subtraction",
                }
            ]
        ),
        [("Each pack costs 76 dollars. How much do you pay with 25 dollars off?", [], "51")],
    ),
    "multiarith-original": (
        json.dumps(
            [
                {
                    "iIndex": 0,
                    "lAlignments": [21],
                    "lEquations": ["X=(9*3)+4"],
                    "lSolutions": [31.0],
                    "sQuestion": "Nine bags of three and four more: how many?",
                }
            ]
        ),
        [("Nine bags of three and four more: how many?", [], "31")],
    ),
    "mmlu-original": (
        '"What is 2 + 2, as ""a number""?",3,4,5,6,B\r\nWhat is 1 + 1?,2,3,4,5,A\r\n',
        [('What is 2 + 2, as "a number"?', ["3", "4", "5", "6"], "B"), ("What is 1 + 1?", ["2", "3", "4", "5"], "A")],
    ),
    "hellaswag-original": (
        lines(
            {
                "ind": 24,
                "activity_label": "Roof shingle removal",
                "ctx_a": "A man is sitting on a roof.",
                "ctx_b": "he",
                "ctx": "A man is sitting on a roof. he",
                "split": "val",
                "endings": ["swims.", "flies.", "reads.", "starts pulling up roofing."],
                "source_id": "activitynet~v_1",
                "label": 3,
            }
        ),
        [("A man is sitting on a roof. he", ["swims.", "flies.", "reads.", "starts pulling up roofing."], "D")],
    ),
    "math-original": (
        lines(
            {
                "problem": "Find the roots of $x^2 = 4$.",
                "solution": "They are $\\boxed{-2,2}$.",
                "answer": "-2,2",
                "subject": "Algebra",
                "level": 5,
                "unique_id": "test/algebra/1.json",
            },
            {
                "problem": "What is $1+1$?",
                "solution": "$\\boxed{2}$",
                "answer": "2",
                "subject": "Algebra",
                "level": 1,
                "unique_id": "test/algebra/2.json",
            },
        ),
        [("Find the roots of $x^2 = 4$.", [], "-2,2")],
    ),
    "date-original": (
        json.dumps(
            {
                "name": "date_understanding",
                "examples": [
                    {
                        "input": "Today is Christmas Eve of 1937. What is the date tomorrow?",
                        "target_scores": {"12/25/1937": 1, "12/24/1937": 0},
                    }
                ],
            }
        ),
        [("Today is Christmas Eve of 1937. What is the date tomorrow?", {"12/25/1937", "12/24/1937"}, "12/25/1937")],
    ),
    "objects-original": (
        json.dumps({"canary": "BIG-bench", "examples": [{"input": COLOURS, "target": "(B)"}]}),
        [
            (
                "On the desk, you see a red pen and a teal cup. What color is the cup?",
                ["red", "teal", "mauve"],
                "B",
            )
        ],
    ),
    "truthfulqa-original": (
        json.dumps(
            [{"question": "What color is the sky?", "mc1_targets": {"Blue.": 1, "Green.": 0}, "mc2_targets": {}}]
        ),
        [("What color is the sky?", {"Blue.", "Green."}, "Blue.")],
    ),
    "letters-original": (
        json.dumps({"examples": [{"question": 'Take the last letters of "Ann Lee" and join them.', "answer": "ne"}]}),
        [('Take the last letters of "Ann Lee" and join them.', [], "ne")],
    ),
}


def test_each_benchmark_has_an_original_file_here():
    assert len(ORIGINALS) >= 10 and FILES.keys() == ORIGINALS.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_its_authors_published_it_is_mapped(name, tmp_path):
    benchmark = Benchmark.model_validate(ORIGINALS[name])
    file = benchmark.files[benchmark.splits["test"].file]
    path = tmp_path / file.source.rpartition("/")[2]
    path.write_text(FILES[name][0], newline="")
    mapping = {key: getattr(benchmark, key) for key in Mapping.model_fields}
    settings = PrepareSettings(**mapping, name="test", split=benchmark.splits["test"], reading=file.reading)
    pool = read_pool(path, settings)
    found = []
    for item, (_, options, _) in zip(pool.items, FILES[name][1], strict=True):
        if isinstance(options, set):  # shuffled
            correct = item["choices"]["AB".index(item["answer"])]
            found.append((item["question"], set(item["choices"]), correct))
        else:
            found.append((item["question"], item["choices"], item["answer"]))
    assert sorted(found, key=str) == sorted(FILES[name][1], key=str)
    assert not pool.faults
