"""Puts the page together: one HTML file that needs nothing else, neither a network nor a server."""

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from selfrefine.report import flip_tables
from selfrefine.report.figures.font_note import LACKING, lacking_font
from selfrefine.report.labels import whose_claims
from selfrefine.report.page import captions, changes, claim_rows, flip_rows, funnels, making, result_tables
from selfrefine.report.page.embedded import embedded
from selfrefine.report.page.model_titles import ARMS, STYLES
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.report.page.responses import MOST, Reader
from selfrefine.store.files import read_json
from selfrefine.store.provenance import record_of

# By these names the files count as code of the page: what they say decides what it shows.
STYLE, SCRIPT, PAGE = "templates/page.css", "templates/page.js", "templates/page.html.j2"
PARTS = ("templates/parts.html.j2", "templates/reader.html.j2")
# Figures are drawn for print: pixels for each point of theirs.
LARGER = 1.6
VERDICTS = ("supported", "contradicted", "undecided", "not tested")


def heading_of(inputs: PageInputs) -> str:
    """Above the claims: whose they are."""
    whose = whose_claims(claim["claim"] for claim in inputs.claims).replace("'", "’")
    return whose if "study" in whose else f"{whose}, in this study"


def assemble(inputs: PageInputs, most: int = MOST) -> str:
    """The page's HTML."""
    reader = Reader(inputs, most)
    claims, scale = claim_rows.claim_rows(inputs)
    script = text_of(SCRIPT)
    students = unique(cell["student"] for cell in inputs.index["cells"])
    found = changes.changes(inputs)
    tables = result_tables.all_tables(inputs)
    if sources := source_table(inputs):
        tables.append(sources)
    return ENVIRONMENT.get_template(PAGE).render(
        inputs=inputs,
        compared=compared(inputs),
        heading=heading_of(inputs),
        claims=claims,
        verdicts=[(verdict, sum(row.verdict == verdict for row in claims)) for verdict in VERDICTS],
        scale=scale,
        flips=flip_rows.flip_rows(inputs),
        flips_line=flip_tables.flips_line(inputs.flips),
        cost=making.cost(inputs),
        figures=[figure(inputs, name, path, students) for name, path in inputs.figures.items()],
        fonts_note=fonts_note(inputs),
        funnels=funnels.funnels(inputs),
        changes=found,
        tables=tables,
        made=making.made(inputs),
        notes=reader.notes,
        set_of={one["file"]: number for number, one in enumerate(reader.sets)},
        words={"arms": ARMS, "styles": STYLES},
        style=Markup(text_of(STYLE)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(embedded({**reader.data(), "starts": starts(reader, found), "arms": ARMS, "styles": STYLES})),
        configuration_link=data_link("application/yaml", inputs.configuration.encode()),
    )


def data_link(kind: str, content: bytes) -> str:
    """A file as a link that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def compared(inputs: PageInputs) -> list[tuple[str, str]]:
    """What the study compares, in words."""
    cells = inputs.index["cells"]
    titles, trained = inputs.titles, [cell for cell in cells if cell["arm"] != "teacher"]
    tasks = (titles[task] for cell in trained for task in (cell["task"], cell["refine_task"]) if task)
    facts = {
        "Student": ", ".join(unique(inputs.models.student(cell["student"]) for cell in trained)),
        "Teacher": ", ".join(unique(inputs.models.teacher(cell["teacher"]) for cell in cells)),
        "Trained on": ", ".join(unique(tasks)),
        "Evaluated on": ", ".join(unique(titles[cell["evaluation"]] for cell in cells)),
        "Arms": " → ".join(unique(ARMS[cell["arm"]].lower() for cell in trained)),
        "Preference recipe": ", ".join(unique(cell["recipe"] for cell in cells)),
        "Seeds": listed(unique(str(cell["seed"]) for cell in cells)),
    }
    if "share" in inputs.several:
        facts["Shares"] = ", ".join(f"{share} %" for share in unique(str(cell["share"]) for cell in cells))
    facts["Items chosen by"] = ", ".join(unique(str(cell.get("select", "")) for cell in cells))
    spent = making.cost(inputs)
    facts["Cost"] = f"{making.duration(spent.seconds)} of computing, {spent.tokens:,} tokens"
    return [(name, text) for name, text in facts.items() if text]


def figure(inputs: PageInputs, name: str, path: Path, students: list[str]) -> dict[str, Any]:
    """A figure with its caption, as an image that holds it."""
    title, text = captions.caption_of(name, captions.FIGURES, students, inputs.models)
    drawing = path.read_text("utf-8")
    width = re.search(r'<svg[^>]* width="([\d.]+)', drawing)
    assert width, f"{path}: a drawing without a width"
    shown = round(LARGER * float(width[1]))
    link = data_link("image/svg+xml", drawing.encode())
    return {"name": name, "title": title, "caption": text, "link": link, "width": shown}


def fonts_note(inputs: PageInputs) -> str:
    """What the figures' titles lack a font for; empty where they lack nothing."""
    records = (read_json(record_of(path)) for path in inputs.figures.values())
    lacking = {*"".join(record["figures"].get(LACKING, "") for record in records)}
    return lacking_font("".join(sorted(lacking))) if lacking else ""


def source_table(inputs: PageInputs) -> result_tables.SortableTable | None:
    """What the study is made of, from where, under which licence."""
    if not inputs.sources:
        return None
    header = list(inputs.sources[0])
    rows = [[result_tables.Shown(_source_cell(inputs, row, name)) for name in header] for row in inputs.sources]
    caption = "Benchmarks and models, where they come from, and under which licence."
    return result_tables.SortableTable(
        "sources", "Sources and licences", caption, [h.capitalize() for h in header], rows
    )


def _source_cell(inputs: PageInputs, row: dict[str, str], name: str) -> str:
    if name != "name":
        return row[name]
    if row["role"] == "benchmark":
        return inputs.titles.get(row[name], row[name])
    return inputs.models.student(row[name]) if row["role"] == "student" else inputs.models.teacher(row[name])


def starts(reader: Reader, found: Iterable[changes.Change]) -> dict[int, int]:
    """By evaluated set, that of the checkpoint it was trained from; those of lm-eval's tasks are not among them."""
    places = {one["file"]: number for number, one in enumerate(reader.sets)}
    return {places[one.treated]: places[one.control] for one in found if one.treated in places}


def listed(seeds: list[str]) -> str:
    """How many seeds, and which: else "0" would read as none."""
    return f"{len(seeds)} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})" if seeds else ""


def unique(texts: Iterable[str]) -> list[str]:
    """Strings in their order, each once; empty ones are left out."""
    return [text for text in dict.fromkeys(texts) if text]


def text_of(name: str) -> str:
    """A file of the page's own."""
    return (Path(__file__).parent / name).read_text("utf-8")


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.DictLoader({name: text_of(name) for name in (PAGE, *PARTS)}),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"duration": making.duration, "points": result_tables.signed}
