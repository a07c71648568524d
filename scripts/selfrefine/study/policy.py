"""The policy of a study: what it counts as evidence for the claims, registered before it evaluates."""

from typing import Any

from selfrefine.analysis.own_claims import claims_of
from selfrefine.study.choices import choices_of
from selfrefine.study.design import Study
from selfrefine.study.resolve import split_of

# Of the study's design, what decides which comparisons its claims have.
DESIGN = ("students", "teachers", "tasks", "evaluate", "arms", "recipes", "shares", "seeds")


def policy_of(study: Study) -> dict[str, Any]:
    """The claims and how they are tested: level, margin, correction, extractor, and the design they are tested on."""
    own = study.study
    # In no order: that of a configuration's entries decides nothing.
    design = {name: sorted(getattr(own, name)) for name in DESIGN}
    if choices_of(study):
        design["select"] = sorted(study.demonstrations.select or [])
    design["transfer_shares"] = sorted(share for share in own.shares if own.transfers(share))
    claims = {
        str(claim.number): {
            "title": claim.title,
            "says": claim.says,
            "parts": [
                part.needs if part.own else f"{part.treated} against {part.control}: {part.needs}"
                for part in claim.parts
            ],
        }
        for claim in claims_of(study.claims)
    }
    return {
        "claims": claims,
        "statistics": study.statistics.asked(),
        "correction": "Holm over all comparisons of a claim",
        "extractor": study.extractor,
        "design": design,
        "items": {task: split_of(study, task, "test").size for task in study.study.benchmarks},
    }
