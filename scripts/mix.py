"""Takes each item's answer from the teacher that a mixture draws for it."""

import argparse
import collections
from pathlib import Path

from selfrefine.data.items import read_items
from selfrefine.data.mixtures import teacher_for
from selfrefine.errors import UserError
from selfrefine.judging.sampled_paths import count
from selfrefine.programs import cli
from selfrefine.schema.rows import TeacherAnswer
from selfrefine.schema.stages import MixSettings
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, MixSettings)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the items that are asked")
    answers = "the judged answers of each teacher, in the order of the teachers' names"
    parser.add_argument("--answers", required=True, nargs="+", type=cli.file_of("teach"), help=answers)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    teachers = sorted(args.settings.shares)
    if len(teachers) != len(args.answers):
        raise UserError(
            f"--answers: {len(args.answers)} files for the teachers {', '.join(teachers)}; give one of each"
        )
    with cli.begin(__file__, args, [args.items, *args.answers]) as run:
        if not run.made:
            mix(args.settings, args.items, dict(zip(teachers, args.answers, strict=True)), run)


def mix(settings: MixSettings, items: Path, files: dict[str, Path], run: Run) -> None:
    """Writes the mixture's answers, and records how many of each teacher's it took."""
    answers: dict[str, dict[str, TeacherAnswer]] = {
        teacher: {row["item"]: row for row in read_jsonl(path)} for teacher, path in files.items()
    }
    rows: list[TeacherAnswer] = []
    for item in read_items(items):
        teacher = teacher_for(item, settings)
        if item not in answers[teacher]:
            raise UserError(f"{files[teacher]}: has no answer to item {item}, which is drawn for {teacher!r}")
        rows.append({**answers[teacher][item], "teacher": teacher})
    rows.sort(key=lambda row: row["id"])
    write_jsonl(run.file, rows)
    numbers = collections.Counter(row["teacher"] for row in rows)
    for teacher in sorted(set(files).difference(numbers)):
        print(f"{run.file}: none of {len(rows)} items is drawn for {teacher!r}", flush=True)
    taken = {
        teacher: {
            "taken": numbers[teacher],
            "of": len(answers[teacher]),
            "tokens": sum(row["tokens"] for row in rows if row["teacher"] == teacher),
        }
        for teacher in files
    }
    run.record([run.file], paths=count(rows), mixture=taken)


if __name__ == "__main__":
    cli.run(main)
