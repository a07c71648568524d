"""Whether the claims' statistics hold what they promise, on simulated studies, as tables in Markdown.

python bench/simulate.py                  all tables, in about five minutes on two cores
python bench/simulate.py --quick          the same of a tenth of the studies, in a minute
python bench/simulate.py looks collapsed  some of them

bench/worlds.py says how answers come about. All shares are in percent, each with its Monte-Carlo standard error; `!`
marks an error rate that is above what is promised by more than three of them.
"""

import argparse
import functools
import multiprocessing
from typing import Any

from simulated_comparisons import COMPARISONS
from simulated_planning import PLANNING
from simulated_studies import STUDIES
from worlds import show

TABLES = COMPARISONS | STUDIES | PLANNING


def row_of(name: str, studies: int, setting: tuple[Any, ...]) -> list[Any]:
    return TABLES[name].row(studies, *setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="table", help=f"of {', '.join(TABLES)}; all without it")
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies per setting (default: 1000)")
    parser.add_argument("--quick", action="store_true", help="100 studies per setting")
    args = parser.parse_args()
    if unknown := set(args.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    with multiprocessing.Pool(2) as pool:
        for name in args.tables or TABLES:
            table = TABLES[name]
            rows = pool.imap(functools.partial(row_of, name, 100 if args.quick else args.studies), table.settings)
            show(table.title, table.header, rows)


if __name__ == "__main__":
    main()
