"""The final artifacts of a study: tables, figures, claims and pages, and what they still need."""

from collections.abc import Iterator
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.store.hashing import KnownHashes, digest
from selfrefine.store.locations import (
    DETAILS,
    DIGITS,
    FIGURE_FORMATS,
    FLIPS_PAGE,
    LAYOUT_FORMATS,
    LISTINGS,
    TABLES,
    VERDICTS,
    artifact_folder,
    marker_file,
    marker_numbers,
    result_name,
    study_folder,
    table_file,
)
from selfrefine.study.artifact import Artifact
from selfrefine.study.artifacts import Artifacts, Inputs
from selfrefine.study.figures_and_layouts import FIGURES, LAYOUTS, kind_of
from selfrefine.study.layout_inputs import layout_inputs
from selfrefine.study.listings import Listings
from selfrefine.study.lookup import artifact_at
from selfrefine.study.table_inputs import COUNTED, TableInputs

# Stages whose artifacts are final. A study has one artifact of each of these,
ONE = ("tables", "claims", "flips", "summarise", "page")
# and several of each of these.
SEVERAL = ("plot", "layout", "listing")


class FinalArtifacts:
    """The final artifacts of a study, made up when they are first asked for.

    `hashes` are those of the local files that the study reads.
    """

    def __init__(self, artifacts: Artifacts, hashes: KnownHashes | None = None):
        self.artifacts = artifacts
        self.hashes = hashes
        self.study = artifacts.study
        self.inputs = TableInputs(artifacts)
        self.listings = Listings(self.inputs)

    def _one(self, stage: str, inputs: Inputs) -> Artifact:
        return self.artifacts.artifact(stage, (), {}, inputs)

    def tables(self) -> Artifact:
        """The study's tables."""

        def make() -> Artifact:
            behind = tuple(dict.fromkeys(self.inputs.of(COUNTED)))
            index = self.listings.artifact("tables")
            return self._one("tables", {"index": index, "samples": self.inputs.samples, "behind": behind})

        return self.artifacts.once(("tables",), make)

    def claims(self) -> Artifact:
        """The verdicts on the paper's claims."""

        def make() -> Artifact:
            inputs: Inputs = {"index": self.listings.artifact("tables"), "policy": self.listings.artifact("policy")}
            behind = self.inputs.of(("training",))
            return self._one("claims", {**inputs, "samples": self.inputs.samples, "behind": behind})

        return self.artifacts.once(("claims",), make)

    def flips(self) -> Artifact:
        """The verdicts on the claims under other choices."""

        def make() -> Artifact:
            styled = [one for of in self.inputs.styles.values() for one in of.values()]
            inputs: Inputs = {
                "index": self.listings.artifact("flips"),
                "claims": self.claims(),
                "samples": self.inputs.samples,
                "behind": (*styled, *self.inputs.tasks.values(), *self.inputs.of(("training",))),
            }
            return self._one("flips", inputs)

        return self.artifacts.once(("flips",), make)

    def summarise(self) -> Artifact:
        """The summary."""

        def make() -> Artifact:
            return self._one("summarise", {"tables": self.tables(), "claims": self.claims(), "flips": self.flips()})

        return self.artifacts.once(("summarise",), make)

    def page(self) -> Artifact:
        """The page that shows all of the study's results and responses."""

        def make() -> Artifact:
            inputs: Inputs = {
                "index": self.listings.artifact("page"),
                "configuration": self.listings.artifact("configuration"),
                "used_sources": self.listings.artifact("sources"),
                "tables": self.tables(),
                "claims": self.claims(),
                "flips": self.flips(),
                "figures": tuple(map(self.plot, self.study.figures())),
                "layouts": tuple(map(self.layout, self.study.layouts())),
                "samples": self.inputs.samples,
                "behind": tuple(dict.fromkeys(self._behind_page())),
            }
            return self._one("page", inputs)

        return self.artifacts.once(("page",), make)

    def _behind_page(self) -> Iterator[Artifact]:
        yield from self.inputs.of(("items", "answers", "parts", "paths", "pairs"))
        yield from self.inputs.tasks.values()
        yield from self.inputs.shots.values()

    def plot(self, figure: str) -> Artifact:
        """A figure."""

        def make() -> Artifact:
            kind, _ = kind_of(figure)
            inputs: Inputs
            if FIGURES[kind]:
                inputs = {"tables": self.tables()}
            elif kind == "claims":
                inputs = {"claims": self.claims()}
            elif kind == "flips":
                inputs = {"flips": self.flips()}
            else:
                inputs = {"index": self.listings.artifact("training"), "behind": self.inputs.of(("training",))}
            return self.artifacts.artifact("plot", (figure,), {"figure": figure}, inputs)

        return self.artifacts.once(("plot", figure), make)

    def layout(self, name: str) -> Artifact:
        """A laid-out table."""

        def make() -> Artifact:
            settings, behind = layout_inputs(self.inputs, name)
            tables = self.tables() if LAYOUTS[settings["layout"]] else None
            inputs: Inputs = {"tables": tables, "behind": tuple(behind) or None}
            return self.artifacts.artifact("layout", (name,), {"layout": name}, inputs, settings)

        return self.artifacts.once(("layout", name), make)

    # All of them.

    def all(self) -> list[Artifact]:
        """What the study is asked for."""
        return [
            self.listings.artifact("configuration"),
            self.listings.artifact("sources"),
            self.tables(),
            self.summarise(),
            self.claims(),
            self.flips(),
            self.page(),
            *map(self.plot, self.study.figures()),
            *map(self.layout, self.study.layouts()),
        ]

    def behind_all(self) -> Iterator[Artifact]:
        """Every artifact that the study is made of, each once, those that others are made of first."""
        seen: set[Path] = set()
        for final in self.all():
            for one in final.behind():
                if one.folder not in seen:
                    seen.add(one.folder)
                    yield one

    def missing(self) -> list[Artifact]:
        """The artifacts that are still to be made, in an order in which they can be made."""
        found: dict[Path, Artifact] = {}
        for final in self.all():
            stack = [(final, False)]
            while stack:
                one, entered = stack.pop()
                if entered:
                    found[one.folder] = one
                elif one.folder not in found and not one.record.exists():
                    stack.append((one, True))
                    stack += [(each, False) for inputs in one.inputs.values() for each in inputs]
        return list(found.values())

    def key(self) -> str:
        """Stands for all of the study's results."""
        return digest([str(one.folder) for one in self.all()], DIGITS)

    def files(self, final: Artifact) -> list[Path]:
        """The files of a final artifact that readers look at."""
        name = final.names[-1] if final.names else ""
        match final.stage:
            case "listing":
                return [final.folder / LISTINGS[name]]
            case "tables":
                return [table_file(final.folder, table) for table in TABLES]
            case "plot":
                return [final.folder / f"{name}.{form}" for form in FIGURE_FORMATS]
            case "layout":
                return [final.folder / f"{name}.{form}" for form in LAYOUT_FORMATS]
            case "claims":
                return [final.file, final.folder / VERDICTS]
            case "flips":
                return [final.file, final.folder / FLIPS_PAGE]
            case "summarise":
                return [final.file, final.folder / DETAILS]
            case _:
                return [final.file]

    @staticmethod
    def name_of(final: Artifact, file: Path) -> str:
        """What a file of a final artifact is called below the folder of the study's results."""
        return result_name(final.stage, file.name)

    def shown(self) -> str:
        """The marker of this study's results under their names: another one each time that some of them are gone."""
        name, key = self.study.study.name, self.key()
        numbers = marker_numbers(name, key)
        links = (study_folder(name) / self.name_of(one, file) for one in self.all() for file in self.files(one))
        gone = bool(numbers) and not all(path.exists() for path in links)
        return str(marker_file(name, key, max(numbers, default=0) + gone))

    def at(self, stage: str, names: tuple[str, ...], key: str) -> Artifact:
        """The artifact of a path's parts; `UserError` where this configuration has no such names or key."""
        if stage not in (*ONE, *SEVERAL):
            return artifact_at(self.artifacts, stage, names, key)
        place, made = artifact_folder(stage, names, key), self._called(stage, names)
        if made is None:
            known = ", ".join(self._names()[stage])
            raise UserError(f"{place}: this configuration has no such artifact; it has {known}")
        if made.key != key:
            raise UserError(f"{place}: in this configuration its key is {made.key}")
        return made

    def _names(self) -> dict[str, list[str]]:
        return {"plot": self.study.figures(), "layout": self.study.layouts(), "listing": [*LISTINGS]}

    def _called(self, stage: str, names: tuple[str, ...]) -> Artifact | None:
        """The final artifact of a stage that has these names."""
        if stage in ONE:
            own: Artifact = getattr(self, stage)()
            return own
        name = "/".join(names)
        if name not in self._names()[stage]:
            return None
        several = {"plot": self.plot, "layout": self.layout, "listing": self.listings.artifact}
        return several[stage](name)
