"""Tables and the last line of a bench."""

import json


def table(titles: list[str], rows: list[list]) -> None:
    """Prints a Markdown table; floats with three figures, None as an empty field."""
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for row in rows:
        print("| " + " | ".join(map(_shown, row)) + " |")
    print(flush=True)


def _shown(value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def last_line(facts: dict) -> None:
    """Prints one JSON object; floats with four figures."""
    print(json.dumps(_rounded(facts)), flush=True)


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
