"""Traces a result to everything behind it: a file, a row, a bar of a figure, a claim's comparison.

Needs the standard library and pydantic alone, so that an archive can be checked where the pipeline is not installed.
"""

import sys
from pathlib import Path, PurePosixPath

from selfrefine.audit.chain import Chain
from selfrefine.audit.integrity import AuditedResults
from selfrefine.audit.table_checks import check_all
from selfrefine.audit.table_rows import index_of, is_table, select
from selfrefine.errors import UserError
from selfrefine.report import selection
from selfrefine.report.model_names import Models
from selfrefine.schema.record import Record
from selfrefine.store.files import read_json
from selfrefine.store.locations import LISTINGS, STORE, TRAINING, VERDICTS, is_listing

# Names a cell of a laid-out table's row, by its column, instead of a value to select rows by.
CELL = "cell"


def print_trace(folder: Path, path: str | None, wanted: list[str]) -> bool:
    """Prints the chain behind a file of the results, or with None checks all of them; whether every link holds.

    `folder` has the results; `wanted` are `COLUMN=VALUE`, for the rows to trace.
    """
    results = AuditedResults(folder)
    if path is None:
        check_all(results)
        if results.left_out:
            print(
                f"{len(results.left_out)} files were left out when the study was shared: known by their records alone"
            )
        if results.outside:
            print(f"{len(results.outside)} files outside the results, not here: not checked")
        if results.changed_outside:
            number = len(results.changed_outside)
            print(f"{number} files outside the results, changed since some artifacts were made from them: not checked")
    else:
        print("\n".join(trace(results, path, _pairs(wanted))))
    verdict = f"{len(results.faults)} broken" if results.faults else "every link holds"
    print(f"{results.amount_checked()}: {verdict}", flush=True)
    for fault in results.faults:
        print(f"broken: {fault}", file=sys.stderr)
    return not results.faults


def _pairs(texts: list[str]) -> dict[str, str]:
    """`COLUMN=VALUE` pairs, by column."""
    wanted: dict[str, str] = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not (column and equals) or column in wanted:
            raise UserError(f"{text}: expected COLUMN=VALUE, each column once")
        wanted[column] = value
    return wanted


def trace(results: AuditedResults, path: str, wanted: dict[str, str]) -> list[str]:
    """The chain behind an artifact, or behind what is wanted of a table, a figure or the claims, as lines.

    `UserError` if there is no such artifact, column or value. Faults are noted in `results`.
    """
    name, chain = results.name(path), Chain(results)
    record_name = results.maker(name)
    if record_name is None and results.state(name) is None and not results.invalid_record(name):
        raise UserError(f"{path}: no such artifact: neither the file nor a record of it is in {results.folder}")
    if not wanted or record_name is None:
        chain.add([name])
        return chain.lines()
    record = results.record(record_name)
    if is_listing(name) and name.endswith(f"/{LISTINGS['sources']}"):
        chain.add_sources(name, select(chain.tables.rows(name), wanted, name))
    elif is_table(record, name):
        chain.add_rows(name, select(chain.tables.rows(name), wanted, name))
    elif record.stage in ("claims", "flips"):
        table = next(path for path in record.outputs if is_table(record, path))
        chain.add_rows(table, select(chain.tables.rows(table), wanted, name))
    elif record.stage == "plot":
        _trace_figure(chain, name, record_name, wanted)
    elif record.stage == "layout":
        _trace_layout(chain, name, record_name, wanted)
    else:
        raise UserError(f"{name}: neither a table nor a figure: name it without {' '.join(wanted)}=…")
    return chain.lines()


def _trace_figure(chain: Chain, name: str, record_name: str, wanted: dict[str, str]) -> None:
    """Adds a figure, and the rows of its tables that it shows and that have what is wanted."""
    record = chain.results.record(record_name)
    figure, student = record.settings.get("figure", ""), record.settings.get("student", "")
    tables = [table for table in record.inputs if table.endswith((".csv", f"/{VERDICTS}"))]
    if not tables:
        _trace_curves(chain, name, record_name, wanted)
        return
    chosen, refused = {}, []
    for table in tables:
        rows = {id(row.cells): row for row in chain.tables.rows(table)}
        drawn = selection.in_figure(figure, student, [row.cells for row in rows.values()], PurePosixPath(table).stem)
        try:
            chosen[table] = select([rows[id(cells)] for cells in drawn], wanted, name)
        except UserError as error:
            refused.append(error)
    if not chosen:
        raise refused[0]
    chain.add_one(record_name, [name], 0, list(chosen))
    for table, chosen_rows in chosen.items():
        chain.add_rows(table, chosen_rows, 1)


def _trace_curves(chain: Chain, name: str, record_name: str, wanted: dict[str, str]) -> None:
    """Adds a figure of training curves, and the logs of the checkpoints that are wanted."""
    record = chain.results.record(record_name)
    named = _training_logs(chain, record)
    part = wanted.get("checkpoint", "\n")
    chosen = [log for checkpoint, log in named.items() if part in checkpoint]
    if len(wanted) > 1 or not chosen:
        raise UserError(f"{name}: name its curves with checkpoint= and a part of one of these: {', '.join(named)}")
    chain.add_one(record_name, [name], 0, [path for path in record.inputs if path in chosen or is_listing(path)])
    for log in chosen:
        chain.add([log], 1)


def _training_logs(chain: Chain, record: Record) -> dict[str, str]:
    """The training logs behind a figure, by checkpoint; by their own names if the listing is not there."""
    results, index = chain.results, index_of(record)
    if index and results.state(index) == record.inputs[index]:
        named: dict[str, str] = read_json(results.locate(index))["training"]
        return named
    return {log: log for log in record.inputs if log.endswith(f"/{TRAINING}")}


def _trace_layout(chain: Chain, name: str, record_name: str, wanted: dict[str, str]) -> None:
    """Adds a laid-out table, its rows that are wanted, and the rows of tables or the files that these show."""
    results, record = chain.results, chain.results.record(record_name)
    settings, laid_out = record.settings, next(path for path in record.outputs if path.endswith(".csv"))
    wanted, cell = dict(wanted), wanted.get(CELL, "")
    wanted.pop(CELL, None)
    laid = select(chain.tables.rows(laid_out), wanted, name)
    if cell and cell not in laid[0].cells:
        raise UserError(f"{name}: no column {cell!r}; there are {', '.join(laid[0].cells)}")
    tables = [table for table in record.inputs if table.startswith(f"{STORE}/tables/")]
    kind, titles = settings["layout"], settings["titles"]
    files = {row.line: selection.files_in_layout(kind, row.cells, settings["rows"], titles, cell) for row in laid}
    made = {results.maker(path) for paths in files.values() for path in paths}
    # A laid-out table has titles where its tables have names.
    models = Models(settings.get("students", {}), settings.get("teachers", {}))
    student = models.student(settings["student"])
    chain.add_one(record_name, [name], 0, tables or [path for path in record.inputs if results.maker(path) in made])
    for row in laid:
        chain.add_row(laid_out, row, 1)
        for table in tables:
            known = chain.tables.rows(table)
            of_table = [models.titled(found.cells) for found in known]
            behind = {id(cells): found for cells, found in zip(of_table, known, strict=True)}
            shown = selection.in_layout(kind, student, row.cells, of_table, titles, cell)
            chain.add_rows(table, [behind[id(cells)] for cells in shown], 2)
        for path in files[row.line]:
            if kind == "teachers":
                chain.add_answers(path, settings["extractor"], 2)
            chain.add([path], 2)
