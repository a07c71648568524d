"""The data of the page's reader as JSON inside the page, and a page whose questions are left out."""

import json
from typing import Any

ELEMENT = '<script type="application/json" id="data">'
END = "</script>"
# Where a row of the data's `items` has the question and its options, as page.js knows it.
QUESTION, CHOICES = 3, 4


def embedded(value: Any) -> str:
    """A value as JSON that may stand in a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # An element ends at `</script`, and `<!--` changes how it is read;
    # half a surrogate pair cannot be written as UTF-8.
    return text.replace("<", "\\u003c").encode("utf-8", "backslashreplace").decode()


def without_questions(page: str, instead: str) -> str:
    """The page with another text in the place of each question and each option; `ValueError` if it is none of ours."""
    before, element, rest = page.partition(ELEMENT)
    text, end, after = rest.partition(END)
    if not (element and end):
        raise ValueError("no page with data")
    data = json.loads(text)
    for item in data["items"]:
        item[QUESTION], item[CHOICES] = instead, [instead] * len(item[CHOICES])
    return before + element + embedded(data) + end + after
