"""A study's own claims as comparisons of arms: both sides are alike but in what both name."""

from collections.abc import Iterable, Iterator, Mapping

from selfrefine.analysis.paper_claims import CLAIMS, FACTS, Arm, Claim, Part
from selfrefine.schema.claims import ANY, Claims, Facts, OwnClaim, OwnPart, Value

# A fact of a comparison: whether the treated arm answers the benchmark that it was trained on last.
DOMAIN = "domain"
DOMAINS = {"in": True, "out": False}
# Facts that follow from each other: who names one leaves the other open.
TOGETHER = {"teacher": "family", "family": "teacher"}
# What an arm was trained on; "" where it was not trained in that phase.
LEARNED = ("task", "refine_task")


def claims_of(given: Claims) -> tuple[Claim, ...]:
    """The claims of a study: the paper's, unless it is left out, and the study's own."""
    own = (own_claim(name, each) for name, each in given.own.items())
    return (*(CLAIMS if given.paper else ()), *own)


def own_claim(name: str, given: OwnClaim) -> Claim:
    """A claim as the verdicts need it."""
    return Claim(name, given.title, given.says, tuple(map(OwnComparisons.part, given.compared)), effect=given.effect)


class OwnComparisons:
    """The comparisons of one part of a claim."""

    def __init__(self, given: OwnPart):
        self.given = given
        sides = given.treated, given.control
        self.free = {*given.treated} & {*given.control}
        self.free |= {fact for side in sides for fact, wanted in side.items() if values(wanted) == [ANY]}
        self.free |= {TOGETHER[fact] for fact in self.free if fact in TOGETHER}
        self.alike = [fact for fact in FACTS if fact not in self.free]

    @classmethod
    def part(cls, given: OwnPart) -> Part:
        """A part of a claim as the verdicts need it."""
        own = cls(given)
        return Part(given.title, "", "", (), own.is_compared, own.needed(), own)

    def pairs(self, arms: Iterable[Arm]) -> Iterator[tuple[Arm, Arm]]:
        """(treated, control) of each comparison."""
        own = self.given
        treated: list[Arm] = []
        controls: dict[str, list[Arm]] = {}
        for arm in arms:
            if has(arm, own.treated) and has(arm, own.where) and in_domain(arm, own.where):
                treated.append(arm)
            if has(arm, own.control) and has(arm, own.where, lenient=True):
                controls.setdefault(arm.evaluation, []).append(arm)
        for arm in treated:
            for control in controls.get(arm.evaluation, ()):
                if self.is_compared(arm, control):
                    yield arm, control

    def is_compared(self, treated: Arm, control: Arm) -> bool:
        """Whether two arms that the sides admit are alike in all else. A fact that one of them lacks cannot differ."""
        if treated[:-1] == control[:-1]:
            return False
        if any(not same(getattr(treated, fact), getattr(control, fact)) for fact in self.alike):
            return False
        # Where one was trained in phase 1 and the other in phase 2 alone, both learned from one benchmark.
        learned = [{getattr(arm, fact) for fact in LEARNED} - {""} for arm in (treated, control)]
        return bool(self.free.intersection(LEARNED)) or not all(learned) or bool(learned[0] & learned[1])

    def told(self, treated: Arm, control: Arm) -> list[str]:
        """The two sides in words: the arm, and the facts that they are chosen by and differ in."""
        named = {*self.given.treated, *self.given.control} - {"arm"}
        differ = [fact for fact in FACTS if fact in named and getattr(treated, fact) != getattr(control, fact)]
        return [" ".join([arm.arm, *(shown(fact, arm) for fact in differ)]).strip() for arm in (treated, control)]

    def needed(self) -> str:
        """What a study must hold for the part to be tested."""
        own = self.given
        where = f", {in_words(own.where)} on both sides" if own.where else ""
        return f"an arm with {in_words(own.treated)} and one with {in_words(own.control)}{where}, alike in all else"


def values(given: Value | list[Value]) -> list[str]:
    """The values that a fact may have, as text."""
    return [str(one) for one in (given if isinstance(given, list) else [given])]


def has(arm: Arm, facts: Facts, lenient: bool = False) -> bool:
    """Whether an arm has these facts; lenient: or lacks them, as the baseline lacks a share."""
    for fact, given in facts.items():
        if fact == DOMAIN or values(given) == [ANY]:
            continue
        value = str(getattr(arm, fact))
        if value not in values(given) and not (lenient and value == ""):
            return False
    return True


def in_domain(arm: Arm, where: Facts) -> bool:
    """Whether the treated arm answers a benchmark of the domain that is asked for."""
    return DOMAIN not in where or arm.in_domain in {DOMAINS[one] for one in values(where[DOMAIN])}


def same(one: object, other: object) -> bool:
    """Whether a fact is alike on both sides; "" stands where it does not apply."""
    return one == other or "" in (one, other)


def shown(fact: str, arm: Arm) -> str:
    """A fact of an arm in words."""
    value = str(getattr(arm, fact))
    return f"{value} %" if fact == "share" and value else value


def in_words(facts: Mapping[str, Value | list[Value]]) -> str:
    """Facts as a reader of the configuration knows them."""
    return ", ".join(f"{fact} {' or '.join(values(given))}" for fact, given in facts.items())


def faults(given: Claims, arms: list[Arm]) -> Iterator[str]:
    """What claims name that the study has none of, each as `key: what is wrong`."""
    known = {fact: list(dict.fromkeys(str(getattr(arm, fact)) for arm in arms)) for fact in FACTS}
    for name, claim in given.own.items():
        found = list(_faults(name, claim, known))
        yield from found
        for number, part in enumerate(claim.compared if not found else ()):
            if next(OwnComparisons(part).pairs(arms), None) is None:
                of = f"claims.{name}" + (f".parts.{number}" if claim.parts else "")
                yield (
                    f"{of}: the study has nothing to compare: no two arms have {in_words(part.treated)} and "
                    f"{in_words(part.control)} and are alike in every fact that not both sides name; where they may "
                    f"differ, name it on both sides, or leave it open as in `task: {ANY}`"
                )


def _faults(name: str, claim: OwnClaim, known: Mapping[str, list[str]]) -> Iterator[str]:
    for number, part in enumerate(claim.compared):
        of = f"claims.{name}" + (f".parts.{number}" if claim.parts else "")
        for side, facts in (("where", part.where), ("treated", part.treated), ("control", part.control)):
            for fact, wanted in facts.items():
                yield from (f"{of}.{side}.{fact}: {fault}" for fault in _of_fact(side, fact, values(wanted), known))


def _of_fact(side: str, fact: str, wanted: list[str], known: Mapping[str, list[str]]) -> Iterator[str]:
    if fact == DOMAIN:
        if side != "where":
            yield "belongs under `where`: both sides answer the same benchmark"
        yield from (f"{one!r} is none; it is in or out" for one in wanted if one not in DOMAINS)
        return
    if fact == "evaluation" and side != "where":
        yield "belongs under `where`: both sides answer the same benchmark"
    if fact not in known:
        yield f"is no fact of an arm; facts are {', '.join((*known, DOMAIN))}"
        return
    there = [value for value in known[fact] if value]
    for one in wanted:
        if one not in (*there, ANY):
            yield f"the study has no {fact} {one!r}; it has {', '.join(sorted(there)) or 'none'}"
        elif one == ANY and (len(wanted) > 1 or side == "where"):
            yield f"{ANY} stands alone, on a side: it leaves open what {fact} that side has"
