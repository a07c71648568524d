"""Which of a teacher's answers become demonstrations."""

import collections
from typing import Any

from selfrefine.schema.rows import Demonstration, TeacherAnswer
from selfrefine.schema.stages import DemonstrateSettings


def demonstrations(
    answers: list[TeacherAnswer], settings: DemonstrateSettings
) -> tuple[list[Demonstration], dict[str, Any]]:
    """The answers that a student learns from, and how many were kept and dropped, by reason.

    The first reason that holds counts: `cut`, `uncommitted` (no answer extracted), `wrong`.
    """
    kept: list[Demonstration] = []
    dropped: collections.Counter[str] = collections.Counter()
    for row in answers:
        if row["finish_reason"] == "length" and not settings.keep_cut:
            dropped["cut"] += 1
        elif row["extracted"] is None and not settings.keep_wrong:
            dropped["uncommitted"] += 1
        elif not row["correct"] and not settings.keep_wrong:
            dropped["wrong"] += 1
        else:
            demonstration: Demonstration = {
                "id": row["id"],
                "item": row["item"],
                "text": row["text"],
                "correct": row["correct"],
                "finish_reason": row["finish_reason"],
                "tokens": row["tokens"],
            }
            if "teacher" in row:
                demonstration["teacher"] = row["teacher"]
            kept.append(demonstration)
    return kept, {"answers": len(answers), "kept": len(kept), "dropped": dict(sorted(dropped.items()))}
