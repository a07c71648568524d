"""Text in figures: as it was written, in lines that fit, in fonts that have its characters."""

import contextlib
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.text import Text

# Characters of a line of text that fit into an inch; inches from line to line.
CHARACTERS, LINE = 16, 0.125
# Inches that stay free beside a panel's title.
BESIDE = 0.25
# No title of a benchmark and no name is a formula.
plt.rcParams["text.parse_math"] = False
# Has a box for each character; matplotlib draws it where no other font has one.
LAST_RESORT = "Last Resort"
# Of capitals and other broad letters, over the width of an average one.
BROAD = 1.5
HYPHENED = re.compile(r"[^-]*-+|[^-]+")
UNITS = re.compile(r"\s+|[\u1100-\U0003ffff]|[^\s\u1100-\U0003ffff]+")


def is_wide(character: str) -> bool:
    """Whether a character takes the place of two, as Chinese ones do."""
    return unicodedata.east_asian_width(character) in "WF"


def cells(text: str) -> int:
    """How many average letters a text is as wide as."""
    return sum(1 + is_wide(character) for character in text)


def width_at_most(text: str) -> float:
    """The same with capitals counted as what they take."""
    return sum(2 if is_wide(one) else BROAD if one.isupper() or one in "mw@%&" else 1 for one in text)


def wrapped(text: str, width: float) -> str:
    """A text in lines of so many average letters; what is too long without spaces is broken at hyphens, else anywhere."""
    if width_at_most(text) <= width:
        return text
    lines, line = [], ""
    for unit in UNITS.findall(text):
        for part in _parts_of(unit, width):
            if line and width_at_most((line + part).rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            line += part if line or not part.isspace() else ""
    return "\n".join([*lines, line.rstrip()] if line.strip() else lines)


def _parts_of(unit: str, width: float) -> list[str]:
    """Where a text without spaces may be broken."""
    if width_at_most(unit) <= width:
        return [unit]
    parts = HYPHENED.findall(unit)
    return parts if max(map(width_at_most, parts)) <= width else list(unit)


def in_lines(text: str, width: int) -> str:
    """A text in lines of so many characters at most, broken at spaces; at hyphens where a word is too long."""
    if cells(text) > len(text):
        return wrapped(text, width)
    is_long = max(map(len, text.split()), default=0) > width
    return textwrap.fill(text, width, break_on_hyphens=is_long)


def fit_titles(figure: plt.Figure, left: float = 0.0) -> None:
    """Puts the panels' titles into lines as wide as the panels; the figure grows by them.

    `left`: inches that names beside the panels take.
    """
    further: dict[int, int] = {}
    width, height = figure.get_size_inches()
    for axis in figure.axes:
        spec = axis.get_subplotspec()
        if spec is None or not axis.get_title() or axis.title.get_rotation():
            continue
        inches = (width - left) / spec.get_gridspec().ncols - BESIDE
        title = wrapped(axis.get_title(), max(inches * CHARACTERS, 4))
        axis.title.set_text(title)
        row = spec.rowspan.start
        further[row] = max(further.get(row, 0), title.count("\n"))
    figure.set_size_inches(width, height + LINE * sum(further.values()))


def upright_title(title: str, inches: float) -> str:
    """A title that stands upright above a panel of this width, in as many lines as have room there, and as long."""
    lines = max(1, int(inches / LINE) - 1)
    longest = max((width_at_most(word) for word in title.split()), default=0)
    return wrapped(title, max(width_at_most(title) / lines * 1.2, min(longest, 24.0), 16.0))


def complete_fonts(figure: plt.Figure) -> str:
    """Gives each text fonts that have its characters, as far as the machine has one; the characters without a font."""
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_text().isascii()]
    own = font_manager.findfont(font_manager.FontProperties())
    lacking = _lacking({one for text in texts for one in text.get_text() if not one.isspace()}, own)
    families = [str(font_manager.FontProperties(fname=own).get_name())]
    for name, path in _fonts() if lacking else ():
        left = _lacking(lacking, path)
        if left != lacking:
            families.append(name)
            lacking = left
    for text in texts if len(families) > 1 else ():
        text.set_fontfamily(families)
    if lacking:
        warnings.filterwarnings("ignore", message="Glyph .* missing")
    return "".join(sorted(lacking))


def drawable(titles: Mapping[str, str], lacking: str, kind: str = "benchmark") -> dict[str, str]:
    """The titles, but names in the place of titles that have characters that no font has; names are ASCII."""
    shown = {name: title for name, title in titles.items() if not {*title} & {*lacking}}
    used = {*shown.values()}
    return {name: shown.get(name, name if name not in used else f"{name} ({kind})") for name in titles}


def _fonts() -> Iterator[tuple[str, str]]:
    """(name, file) of the machine's upright fonts, those of normal weight first, always in the same order."""
    _find_new()
    found = (
        (abs(_weight(font.weight) - 400), str(font.name), str(font.fname))
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and LAST_RESORT not in str(font.name)
    )
    names: set[str] = set()
    for _, name, path in sorted(found):
        if name not in names and Path(path).exists():
            names.add(name)
            yield name, path


def _find_new() -> None:
    """Makes matplotlib, which keeps a list of fonts from one day to the next, see those installed since."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(font_manager.findSystemFonts()):
        if path not in known:
            with contextlib.suppress(OSError, RuntimeError):  # what it cannot read, such as bitmaps
                font_manager.fontManager.addfont(path)


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else int(font_manager.weight_dict.get(weight, 400))


def _lacking(characters: set[str], path: str) -> set[str]:
    """The characters that a font does not have."""
    if not characters:
        return characters
    try:
        known = font_manager.get_font(path).get_charmap()
    except (OSError, RuntimeError):
        return characters
    return {one for one in characters if ord(one) not in known}
