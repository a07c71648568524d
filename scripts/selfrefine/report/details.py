"""The long form of a study's summary: every number in words, in Markdown."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from selfrefine.report import paper_tables, spending
from selfrefine.report.formats import NONE, PAGES, Cell, Rows, Table
from selfrefine.report.labels import TESTS, checkpoint_label, several, unrefined_mark, with_note
from selfrefine.report.model_names import Models
from selfrefine.report.paper_tables import grouped
from selfrefine.report.selection import of_layout
from selfrefine.report.spending import Spent
from selfrefine.report.study_tables import StudyTables
from selfrefine.report.verdict_tables import points
from selfrefine.schema import results
from selfrefine.schema.assumptions import Costs
from selfrefine.store.locations import place_of

Titles = Mapping[str, str]


class Details(NamedTuple):
    """What the long form holds, section by section."""

    accuracy: Table
    comparisons: Table | None
    differing: list[str]
    behaviour: Table
    lengths: Table
    demonstrations: Table | None
    paths: Table | None
    chains: list[str]
    solving: Table | None
    yields: Table | None
    barren: list[str]
    refinements: int
    held_out: Table | None
    worse: list[str]
    stages: Table
    costs: Table
    sources: Table


def details(tables: StudyTables, titles: Titles, sources: Sequence[Mapping[str, str]], costs: Costs) -> str:
    """The whole page."""
    rates, pairs, paths, comparisons = tables.solving(), tables.pairs(), tables.paths(), tables.comparisons()
    demonstrations, refinements = tables.demonstrations(), tables.refinements()
    found = Details(
        accuracy=accuracy(tables.arms(), titles),
        comparisons=comparisons_table(comparisons, titles) if comparisons else None,
        differing=differing(comparisons, titles),
        behaviour=behaviour(tables.accuracy(), titles),
        lengths=paper_tables.lengths(of_layout("lengths", "", tables.lengths()), titles),
        demonstrations=demonstrations_table(demonstrations, titles, tables.models) if demonstrations else None,
        paths=paths_table(paths, titles) if paths else None,
        chains=chains_asked_plainly(paths, titles),
        solving=paper_tables.solving(of_layout("solving", "", rates), titles) if rates else None,
        yields=paper_tables.yields(of_layout("yields", "", pairs), titles) if pairs else None,
        barren=refined_labels(barren(pairs), titles),
        refinements=len(pairs),
        held_out=held_out_table(refinements, titles) if refinements else None,
        worse=refined_labels(worse(refinements), titles),
        stages=stages_table(tables.stages(), costs),
        costs=paper_tables.cost(of_layout("cost", "", tables.costs()), costs),
        sources=sources_table(sources, tables.models, titles),
    )
    return PAGES.get_template("templates/details.md.j2").render(found._asdict())


def accuracy(rows: Sequence[results.ArmRow], titles: Titles) -> Table:
    """Arms by what they were trained on, against benchmarks; shares too."""
    tasks = list(dict.fromkeys(row["evaluation"] for row in rows))
    told = {"teacher", *several(rows, "recipe", "share")}
    body: Rows = []
    facts = ("arm", "student", "teacher", "task", "refine_task", "recipe", "share", "select")
    for group in grouped(rows, lambda row: tuple(str(row.get(fact)) for fact in facts)).values():
        first, found = group[0], {row["evaluation"]: row for row in group}
        numbers: list[Cell] = [
            paper_tables.percent(row["accuracy"], row["low"], row["high"]) if (row := found.get(task)) else NONE
            for task in tasks
        ]
        body.append([first["arm"], *model_and_training(first, titles, told), str(first["seeds"]), *numbers])
    sizes = {row["evaluation"]: row["n"] for row in rows}
    header = ["arm", "model", "training", "seeds", *(f"{titles[task]} (n = {sizes[task]})" for task in tasks)]
    caption = f"Accuracy in percent, with {100 * rows[0]['level']:g} % intervals."
    return Table("accuracy", with_note(caption, rows), header, body, ["l", "l", "l", *"r" * (1 + len(tasks))])


def model_and_training(row: results.Facts, titles: Titles, told: set[str]) -> list[str]:
    """A student and its training in words, or a teacher."""
    if row["arm"] == "teacher":
        return [row["teacher"], NONE]
    return [row["student"], checkpoint_label(row, titles, told) + unrefined_mark(row)]


def comparisons_table(rows: Sequence[results.ComparisonRow], titles: Titles) -> Table:
    """Each trained checkpoint against the one it started from."""
    told = {"teacher", *several(rows, "recipe", "share")}
    body: Rows = [
        [f"{row['arm']} − {row['against']}", *model_and_training(row, titles, told), row["seed"]]
        + [titles[row["evaluation"]], str(row["n"])]
        + [f"{points(row['difference'], '+')} [{points(row['low'], '+')}, {points(row['high'], '+')}]"]
        + [f"{row['gained']:g}", f"{row['lost']:g}", f"{row['p']:.3g}", TESTS[row["test"]]]
        for row in rows
    ]
    header = ["contrast", "student", "training", "seed", "benchmark", "n", "points", "gained", "lost", "p", "test"]
    caption = (
        "Differences in accuracy points with intervals, paired by item; items gained and lost, as sums of shares where "
        "an item has several answers. p: of no difference, by the test beside it."
    )
    return Table("comparisons", with_note(caption, rows), header, body, list("lllrlrrrrrl"))


def differing(rows: Sequence[results.ComparisonRow], titles: Titles) -> list[str]:
    """Where versions or hardware differ between the two sides of a comparison, each difference once."""
    told = {"teacher", "seed", *several(rows, "recipe", "share")}
    found = grouped((row for row in rows if row["differs"]), lambda row: row["differs"])
    lines = []
    for differs, group in found.items():
        sides = [
            f"{row['arm']} − {row['against']} of {row['student']}, {checkpoint_label(row, titles, told)}, "
            f"on {titles[row['evaluation']]}"
            for row in group
        ]
        lines.append(f"{differs}: {'; '.join(sides)}")
    return lines


def behaviour(rows: Sequence[results.AccuracyRow], titles: Titles) -> Table:
    """How the answers look: correct by both extractors, with an answer, with a chain of thought, cut, and how long."""
    told = {"teacher", *several(rows, "recipe", "share")}
    body: Rows = [
        [row["arm"], *model_and_training(row, titles, told), row["seed"], titles[row["evaluation"]]]
        + [points(row["accuracy"]), points(row["legacy_accuracy"]), points(row["committed"])]
        + [points(row["chains"]), points(row["cut"]), f"{row['mean_tokens']:.0f}"]
        for row in rows
    ]
    header = ["arm", "model", "training", "seed", "benchmark", "correct %", "correct by legacy extractor %"]
    header += ["answer extracted %", "over five words before it %", "cut %", "mean tokens"]
    return Table("behaviour", with_note("", rows), header, body, list("lllrlrrrrrr"))


def demonstrations_table(rows: Sequence[results.DemonstrationRow], titles: Titles, models: Models) -> Table:
    """What became of each teacher's answers."""
    body: Rows = []
    for row in rows:
        place = place_of(row["demonstrations"])
        teacher, task = place.names if place else ("", "")
        counts = (row["answers"], row["kept"], *row["dropped"].values())
        known = max((name for name in titles if f"{task}-".startswith(f"{name}-")), key=len, default="")
        chosen = task.removeprefix(known).removeprefix("-") if known else ""
        told = f"{titles[known]}, items chosen: {chosen}" if chosen else titles.get(task, task)
        body.append([models.teacher(teacher), told, *map(str, counts)])
    reasons = list(rows[0]["dropped"])
    header = ["teacher", "benchmark", "answers", "kept", *(REASONS.get(reason, reason) for reason in reasons)]
    caption = "Teachers' answers that became demonstrations, and those that did not by reason."
    return Table("demonstrations", caption, header, body, ["l", "l", *"r" * (2 + len(reasons))])


REASONS = {"wrong": "incorrect", "uncommitted": "no answer extracted"}


def refined_labels(rows: Sequence[results.PairRow | results.RefinementRow], titles: Titles) -> list[str]:
    """Who was refined on what."""
    told = {"teacher", "recipe", "share", "seed"}
    return [f"{row['student']}, {checkpoint_label(row, titles, told)}" for row in rows]


def paths_table(rows: Sequence[results.PathRow], titles: Titles) -> Table:
    """How the sampled paths came out, by how they were asked."""
    told = {"teacher", *several(rows, "share", "seed")}
    body: Rows = []
    for row in rows:
        before = checkpoint_label({**row, "refine_task": ""}, titles, told)
        counts = (row["items"], row["items_solved"], row["paths"], row["correct"], row["committed"])
        of = [row["student"], before, titles[row["refine_task"]], row["style"]]
        body.append([*of, *map(str, (*counts, row["chains"], row["cut"]))])
    header = ["student", "training", "sampled on", "style", "items", "solved", "paths", "correct"]
    header += ["answer extracted", "over five words before it", "cut"]
    caption = "Students' sampled paths, by how they were asked."
    return Table("paths", caption, header, body, list("llllrrrrrrr"))


def chains_asked_plainly(rows: Sequence[results.PathRow], titles: Titles) -> list[str]:
    """How often students reason although they are asked for the answer alone."""
    told = {"teacher", *several(rows, "share", "seed")}
    return [
        f"{row['student']}, {checkpoint_label({**row, 'refine_task': ''}, titles, told)}, asked plainly on "
        f"{titles[row['refine_task']]}: {row['chains']} of {row['paths']} answers "
        f"({points(row['chains'] / row['paths'])} %) put more than five words before the answer all the same."
        for row in rows
        if row["style"] == "plain" and row["paths"]
    ]


def barren(rows: Sequence[results.PairRow]) -> list[results.PairRow]:
    """The refinements with too few pairs to learn from."""
    return [row for row in rows if row["unrefined"]]


def held_out_table(rows: Sequence[results.RefinementRow], titles: Titles) -> Table:
    """What the refinements did to held-out pairs."""
    told = {"teacher", "recipe", *several(rows, "share", "seed")}
    body: Rows = []
    for row in rows:
        known = [row["student"], checkpoint_label(row, titles, told), str(row["updates"]), str(row["held_out"])]
        kept = [str(row["kept_update"]), f"{row['loss']:.3f}", _or_none(points, row["accuracy"])]
        kept += [_or_none(nats, row[name]) for name in ("chosen_token_logp", "rejected_token_logp")]
        is_ordered = not math.isnan(row["highest_accuracy"])
        best = [str(row["highest_update"]), points(row["highest_accuracy"]), nats(row["highest_chosen_token_logp"])]
        body.append([*known, *kept, *(best if is_ordered else [NONE] * 3)])
    header = ["student", "training", "updates", "held out", "kept update", "loss", "ordered correctly %"]
    header += [
        "chosen: nats per token",
        "rejected: nats per token",
        "best update",
        "ordered correctly then %",
        "chosen then",
    ]
    caption = (
        "Held-out pairs at the update whose weights were kept, that of lowest validation loss, and at the one that ordered "
        "most of them correctly: the chosen response has the higher reward."
    )
    return Table("held-out", caption, header, body, list("ll" + "r" * 10))


def nats(value: float) -> str:
    """A log-probability of a token."""
    return f"{value:.2f}"


def _or_none(write: Callable[[float], str], value: float) -> str:
    return NONE if math.isnan(value) else write(value)


def worse(rows: Sequence[results.RefinementRow]) -> list[results.RefinementRow]:
    """The refinements whose kept weights are worse at held-out pairs than other weights that they had."""
    return [row for row in rows if row["worse"]]


def stages_table(rows: Sequence[results.StageRow], costs: Costs) -> Table:
    """What all jobs of each stage took, and the study."""
    body: Rows = []
    groups = grouped(rows, lambda row: row["stage"])
    for stage, group in (*groups.items(), ("all", list(rows))):
        tokens, seconds = sum(row["tokens"] for row in group), sum(row["wall_seconds"] for row in group)
        rate = f"{tokens / seconds:.0f}" if tokens and seconds and stage in groups else NONE
        memory = max(row["peak_memory_mib"] for row in group)
        known = [stage, str(len(group)), f"{seconds:.0f}", str(tokens), rate, str(memory)]
        body.append([*known, *spending.cells(Spent.of(group), costs)])
    header = ["stage", "artifacts", "wall seconds", "tokens", "tokens/s", "peak memory (MiB)"]
    header += spending.header(costs)
    table = Table("stages", spending.told(Spent.of(rows), costs), header, body, ["l"] + ["r"] * (len(header) - 1))
    return paper_tables.finished(table)


def sources_table(sources: Sequence[Mapping[str, str]], models: Models, titles: Titles) -> Table:
    """What the study uses, from where, under which licence."""
    shown = {"benchmark": lambda name: titles.get(name, name), "student": models.student, "teacher": models.teacher}
    header = ["role", "name", "licence", "source"]
    body: Rows = [[row["role"], shown[row["role"]](row["name"]), row["licence"], row["source"]] for row in sources]
    return Table("sources", "", header, body, list("llll"))
