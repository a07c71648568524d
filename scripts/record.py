"""Keeps a live teacher's completions as a recording, so that they need not be made, or paid, again.

Reads the teach stage's outputs (engines transformers, vllm and openai) and writes one file: a first line that says where the completions
come from, then one line per completion with the key of what was asked. It holds no question.
"""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.files import read_json, read_jsonl, write_jsonl
from selfrefine.provenance import record_of

KEPT = ("key", "id", "text", "finish_reason", "tokens", "prompt_tokens")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--answers",
        required=True,
        nargs="+",
        type=cli.file_of("teach"),
        help="outputs of the teach stage, by their records, or the files beside these",
    )
    parser.add_argument("--teacher", required=True, help="the teacher's name")
    parser.add_argument(
        "--model",
        type=Path,
        help="the record of the model of the teacher that answered (engines transformers and vllm)",
    )
    parser.add_argument("--output", required=True, type=Path, help="the recording")
    return parser.parse_args()


def source_of(args: argparse.Namespace, path: Path, record: dict) -> dict:
    """Where answers come from, {source, sha256, licence}; a served model's weights and licence are not known here."""
    recipe = record["recipe"]
    if recipe["engine"] == "openai":
        source = {"source": f"served:{recipe['served']}", "sha256": None, "licence": None}
        return source | {"revision": recipe["revision"], "extra": recipe["extra"]}
    if args.model is None:
        raise UserError(f"{path}: weights answered; name their record with --model")
    source = read_json(args.model)["figures"]["source"]
    return {name: source[name] for name in ("source", "sha256", "licence")}


def main() -> None:
    args = arguments()
    rows, runs, sources = {}, [], []
    for path in args.answers:
        record = read_json(record_of(str(path)))
        if record["recipe"]["engine"] == "recorded":
            raise UserError(f"{path}: was itself replayed from a recording; name the outputs of a live teacher")
        sources.append(source_of(args, path, record))
        if sources[-1] != sources[0]:
            raise UserError(f"{path}: another model answered than in {args.answers[0]}; record them one by one")
        runs.append(
            {name: record[name] for name in ("recipe", "code", "packages", "machine", "started", "wall_seconds")}
        )
        for row in read_jsonl(path):
            rows[row["key"]] = {name: row[name] for name in KEPT}
    header = {"teacher": args.teacher, **sources[0], "runs": runs}
    write_jsonl(args.output, [{"recording": header}, *(rows[key] for key in sorted(rows))])
    print(f"{args.output}: {len(rows)} completions of {args.teacher}")


if __name__ == "__main__":
    cli.run(main)
