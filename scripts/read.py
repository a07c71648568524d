"""Writes a page on which a person reads sampled paths and preference pairs side by side, with their verdicts."""

import argparse
import collections
import html
from pathlib import Path

from selfrefine import cli
from selfrefine.benchmarks import read_items
from selfrefine.files import read_jsonl, whole_file

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #111; }
details { border-top: 1px solid #ccc; padding: .6em 0; }
summary { cursor: pointer; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; }
.text { white-space: pre-wrap; border-left: 4px solid #999; padding: .3em .8em; margin: .4em 0; background: #f6f6f6; }
.right { border-color: #2a7d2a; } .wrong { border-color: #b03030; }
.verdict { font-size: 12px; color: #444; }
"""


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_index(parser, "reading")
    parser.add_argument("--most", type=int, default=40, help="items or pairs of each file to show (default: 40)")
    cli.add_record(parser)
    return parser.parse_args()


def text_block(text: str, correct: bool, verdict: str) -> str:
    mark = "right" if correct else "wrong"
    return f'<div class="text {mark}">{html.escape(text)}</div><div class="verdict">{"✓" if correct else "✗"} {html.escape(verdict)}</div>'


def question(item: dict) -> str:
    choices = "".join(
        f"<br>{label}) {html.escape(choice)}" for label, choice in zip("ABCDEFGHIJ", item["choices"], strict=False)
    )
    return f"<p>{html.escape(item['question'])}{choices}</p><p class='verdict'>target: {html.escape(item['answer'])} · item {item['id']}</p>"


def first_line(item: dict) -> str:
    return html.escape(item["question"][:110] + ("…" if len(item["question"]) > 110 else ""))


def paths_section(path: str, items: dict[str, dict], most: int) -> str:
    by_item = collections.defaultdict(list)
    for row in read_jsonl(Path(path)):
        by_item[row["item"]].append(row)
    parts = [
        f"<h2>Sampled paths</h2><p class='verdict'>{html.escape(path)}, {min(most, len(by_item))} of {len(by_item)} items</p>"
    ]
    for item_id in sorted(by_item)[:most]:
        rows = by_item[item_id]
        right = sum(row["correct"] for row in rows)
        columns = []
        for style in ("cot", "plain"):
            blocks = [
                text_block(
                    row["text"],
                    row["correct"],
                    f"answer {row['extracted']} · {'chain' if row['chain'] else 'no chain'} · {row['tokens']} tokens · {row['finish_reason']}",
                )
                for row in rows
                if row["style"] == style
            ]
            columns.append(f"<div><b>asked {style}</b>{''.join(blocks)}</div>")
        parts.append(
            f"<details><summary>{right} of {len(rows)} right · {first_line(items[item_id])}</summary>"
            f"{question(items[item_id])}<div class='sides'>{''.join(columns)}</div></details>"
        )
    return "".join(parts)


def pairs_section(path: str, items: dict[str, dict], most: int) -> str:
    rows = read_jsonl(Path(path))
    parts = [
        f"<h2>Preference pairs</h2><p class='verdict'>{html.escape(path)}, {min(most, len(rows))} of {len(rows)} pairs</p>"
    ]
    for row in rows[:most]:
        sides = "".join(
            f"<div><b>{side}</b>{text_block(row[side]['text'], row[side]['correct'], row[side]['source'])}</div>"
            for side in ("chosen", "rejected")
            if row[side]
        )
        item = items[row["item"]]
        parts.append(
            f"<details><summary>{row['split']} · {first_line(item)}</summary>{question(item)}<div class='sides'>{sides}</div></details>"
        )
    return "".join(parts)


def main() -> None:
    args = arguments()
    index = cli.read_index(args.index)
    inputs = [args.index, *(Path(path) for kind in ("items", "paths", "pairs") for path in index[kind])]
    with cli.begin(__file__, args, inputs) as run:
        if not run.made:
            write_page(index, args.most, run.file)
            run.record([run.file])


def write_page(index: dict, most: int, output: Path) -> None:
    items: dict[str, dict] = {}
    for path in index["items"]:
        items |= read_items(Path(path))
    sections = [paths_section(path, items, most) for path in index["paths"]]
    sections += [pairs_section(path, items, most) for path in index["pairs"]]
    body = "".join(sections) or "<p>This study samples no paths.</p>"
    with whole_file(output) as file:
        file.write(
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Paths and pairs</title><style>{STYLE}</style>{body}</html>\n"
        )


if __name__ == "__main__":
    cli.run(main)
