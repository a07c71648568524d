"""Wall time and tokens of one checkpoint of each arm, by stage, its teacher's answers included."""

from collections.abc import Sequence

import matplotlib.pyplot as plt

from selfrefine.analysis.costs import STAGES
from selfrefine.report.figures import style, wording
from selfrefine.report.figures.style import Fill
from selfrefine.report.labels import unrefined_mark
from selfrefine.schema.results import CostRow

FILLS = {
    "embed": Fill(style.ORANGE, "....."),
    "choose": Fill(style.ORANGE, ""),
    "teach": Fill(style.BLACK, ""),
    "mix": Fill("#FFFFFF", "/////"),
    "demonstrate": Fill("#FFFFFF", "....."),
    "instruct": Fill(style.SKY, "/////"),
    "sample": Fill(style.YELLOW, ""),
    "pair": Fill("#FFFFFF", "xxxxx"),
    "refine": Fill(style.VERMILION, ""),
    "refine_online": Fill(style.PURPLE, ""),
    "evaluate": Fill(style.GREEN, "-----"),
}
# Of any other stage.
OTHER = Fill("#FFFFFF", "+++++")
# Inches around the bars; characters of a line of a bar's name.
AROUND, WIDE = 0.65, 40
# Seconds from which on hours are told, not minutes.
LONG = 7200


def draw_cost(rows: Sequence[CostRow]) -> plt.Figure:
    """Left wall time, right tokens; a bar per student and arm."""
    arms = list(dict.fromkeys((row["student"], row["arm"]) for row in rows))
    fills = {stage: FILLS[stage] for stage in STAGES} | {
        row["stage"]: OTHER for row in rows if row["stage"] not in STAGES
    }
    seconds, tokens = ({stage: [0.0] * len(arms) for stage in fills} for _ in range(2))
    for row in rows:
        place = arms.index((row["student"], row["arm"]))
        seconds[row["stage"]][place] += row["wall_seconds"]
        tokens[row["stage"]][place] += row["tokens"]
    stages = [stage for stage in fills if sum(seconds[stage]) + sum(tokens[stage]) > 0]
    longest = max(sum(seconds[stage][place] for stage in stages) for place in range(len(arms)))
    unit, divisor = ("hours", 3600) if longest > LONG else ("minutes", 60)
    lacking = {(row["student"], row["arm"]): unrefined_mark(row, "checkpoints") for row in rows}
    bars = style.rows_of((f"{student}, {arm}{lacking[student, arm]}" for student, arm in arms), WIDE)
    size = (style.PAGE, wording.LINE * bars.lines + AROUND)
    figure, panels = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for panel, spent, scale in ((panels[0], seconds, divisor), (panels[1], tokens, 1000)):
        parts = [[value / scale for value in spent[stage]] for stage in stages]
        style.stack(panel, bars, parts, [fills[stage] for stage in stages])
    panels[0].set_xlabel(f"{unit} for one checkpoint")
    panels[1].set_xlabel("thousand tokens for one checkpoint")
    bars.label(panels[0])
    style.legend(figure, [*(fills[stage].patch(stage) for stage in stages), *style.unrefined_note(rows, "checkpoints")])
    return figure
