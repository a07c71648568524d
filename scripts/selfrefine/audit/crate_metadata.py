"""The metadata of a study's RO-Crate: its files, jobs and programs as JSON-LD.

RO-Crate 1.1 with the profile Provenance Run Crate 0.5. Each record is an action: its stage's program made the outputs
from the inputs and the settings. Stages are the steps of the workflow. Entities are plain dictionaries: there are few
kinds of them, and a study has tens of thousands.
"""

import ast
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from selfrefine.audit.citation import Citation
from selfrefine.schema.record import FileState, Record
from selfrefine.store.files import read_json
from selfrefine.store.hashing import canonical_json, digest
from selfrefine.store.locations import CODE, DETAILS, LISTINGS, NAME

METADATA = "ro-crate-metadata.json"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    WORKFLOW_CRATE: "Workflow RO-Crate",
}
LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
MAIN = "Snakefile"
README = "README.md"
# The final results of a study, by the beginning of their names in its folder.
FINAL = ("claims.", DETAILS, "figures/", "index.html", "summary.md", "tables/")
ENCODINGS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".png": "image/png",
    ".py": "text/x-python",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
    **dict.fromkeys(("", ".jinja", ".rst", ".smk", ".txt"), "text/plain"),
}
# What schema.org calls the types of settings; lists and dictionaries are given as JSON.
KINDS = {bool: "Boolean", int: "Integer", float: "Float", str: "Text"}
NESTED = "PropertyValue"


Reference = dict[str, str]


def references(entities: Iterable[str]) -> Reference | list[Reference] | None:
    """References to entities: one by itself, several as a list, None for none."""
    found = [{"@id": entity} for entity in entities]
    return found if len(found) > 1 else next(iter(found), None)


def in_iso(time: datetime.datetime) -> str:
    """A time as RO-Crate has it."""
    return time.astimezone(datetime.UTC).isoformat(timespec="milliseconds")


def end_of(record: Record) -> datetime.datetime:
    """When a job ended."""
    return record.started + datetime.timedelta(seconds=record.wall_seconds)


class CrateMetadata:
    """The crate's entities, by identifier; what jobs share (programs, packages, parameters) is there once.

    `payload` are the files in the crate and `records` the jobs, by path relative to `root`; `results` is the folder of
    the results.
    """

    def __init__(self, root: Path, results: str, payload: dict[str, FileState], records: dict[str, Record]):
        self.software = ""  # the address at which the workflow's programs are at home, if it is known
        self.root = root
        self.results = results
        self.payload = payload
        self.records = records
        # These two come first in the file and are described last.
        self.entities: dict[str, dict[str, Any]] = {METADATA: {}, "./": {}}
        # By stage: its actions, its programs, and the types of each parameter's values.
        self.actions: dict[str, list[str]] = {}
        self.tools: dict[str, set[str]] = {}
        self.parameters: dict[str, dict[str, set[str]]] = {}

    def add(self, entity: str, kind: str | list[str], **properties: object) -> str:
        """Adds an entity, without the properties that are None; returns its identifier."""
        kept = {name: value for name, value in properties.items() if value is not None}
        self.entities[entity] = {"@id": entity, "@type": kind, **kept}
        return entity

    def describe(self, name: str, description: str, licence: str, citation: Citation) -> dict[str, Any]:
        """The whole crate, as JSON-LD. The first author is taken for who ran it."""
        self.software = citation.software or ""
        for path, record in self.records.items():
            self._job(path, record)
        for path, state in self.payload.items():
            about = "./" if path == README else f"#run/{quote(path)}" if path in self.records else None
            self._file(quote(path), path, state, about=about and references([about]))
        self._workflow()
        self._run()
        for profile, title in PROFILES.items():
            self.add(profile, "CreativeWork", name=title, version=profile.rsplit("/", 1)[1])
        self.entities |= {one["@id"]: one for one in (*citation.organisations, *citation.authors)}
        for action in self.entities.values() if citation.authors else ():
            if action.get("@type") == "CreateAction":
                action["agent"] = references([citation.authors[0]["@id"]])
        self.add(
            "./",
            "Dataset",
            name=name,
            description=description,
            datePublished=datetime.datetime.now(datetime.UTC).date().isoformat(),
            license=references([self._licence(licence)]),
            author=references(author["@id"] for author in citation.authors),
            publisher=references(one["@id"] for one in citation.organisations[:1]),
            conformsTo=references(PROFILES),
            mainEntity=references([MAIN]),
            hasPart=references(map(quote, self.payload)),
            mentions=references(["#run", *(action for actions in self.actions.values() for action in actions)]),
        )
        self.add(
            METADATA,
            "CreativeWork",
            about=references(["./"]),
            conformsTo=references([CONTEXT[0].removesuffix("/context"), WORKFLOW_CRATE]),
        )
        return {"@context": CONTEXT, "@graph": list(self.entities.values())}

    def _licence(self, spdx: str) -> str:
        return self.add(
            f"https://spdx.org/licenses/{spdx}",
            "CreativeWork",
            name=spdx,
            description="For what the study made; its sources keep the licences listed in tables/sources.csv.",
        )

    def _file(self, entity: str, path: str, state: FileState, **properties: object) -> str:
        encoding = ENCODINGS.get(Path(path).suffix, "application/octet-stream")
        size = str(state.bytes)
        return self.add(entity, "File", encodingFormat=encoding, contentSize=size, sha256=state.sha256, **properties)

    def _seen_file(self, path: str, state: FileState) -> str:
        """A file as a job saw it: the crate's own, if that has the same content."""
        if self.payload.get(path) == state:
            return quote(path)
        # In RO-Crate, an identifier that begins with # names a file that is not in the crate.
        entity = f"#{state.sha256[:16]}/{quote(path)}"
        return self._file(entity, path, state, alternateName=path, description="Not in the crate.")

    def _job(self, path: str, record: Record) -> None:
        """A job as an action."""
        action = f"#run/{quote(path)}"
        settings = [
            self._parameter(record.stage, key, value) for key, value in record.settings.items() if value is not None
        ]
        memory = self.add(
            f"#memory/{quote(path)}",
            "PropertyValue",
            name="peak memory",
            propertyID="https://en.wikipedia.org/wiki/Resident_set_size",
            unitCode="https://qudt.org/vocab/unit/MebiBYTE",
            value=record.peak_memory_mib,
        )
        self.add(
            action,
            "CreateAction",
            name=f"{record.stage}: {next(iter(record.outputs))}",
            description="; ".join(f"{name}: {value}" for name, value in record.machine.items()),
            instrument=references([self._tool(record)]),
            object=references([*(self._seen_file(*item) for item in record.inputs.items()), *settings]),
            result=references(self._seen_file(*item) for item in record.outputs.items()),
            startTime=in_iso(record.started),
            endTime=in_iso(end_of(record)),
            resourceUsage=references([memory]),
        )
        self.actions.setdefault(record.stage, []).append(action)

    def _parameter(self, stage: str, key: str, value: object) -> str:
        """A setting's value, once for all jobs that have it."""
        kind = KINDS.get(type(value), NESTED)
        self.parameters.setdefault(stage, {}).setdefault(key, set()).add(kind)
        return self.add(
            f"#{stage}.{key}/{digest(value)}",
            "PropertyValue",
            name=key,
            value=canonical_json(value) if kind == NESTED else value,
            exampleOfWork=references([f"#{stage}.{key}"]),
        )

    def _tool(self, record: Record) -> str:
        """A stage's program, once for each fingerprint of its code and each set of packages that it ran with."""
        tool = f"{self.software}#tool/{record.stage}/{record.code}/{digest(record.packages)}"
        self.tools.setdefault(record.stage, set()).add(tool)
        if tool in self.entities:
            return tool
        name, description, source = f"scripts/{record.stage}.py", None, None
        if record.stage == "listing":
            name = "rules/results.smk"
        snapshot = f"{self.results}/{NAME}/{CODE}/{record.code}.json"
        if snapshot in self.payload:
            kept = read_json(self.root / snapshot)
            name, source = kept["script"], references([quote(snapshot)])
            description = ast.get_docstring(ast.parse(kept["files"][name]))
        return self.add(
            tool,
            "SoftwareApplication",
            name=name,
            description=description,
            softwareVersion=record.code,
            url=source,
            softwareRequirements=references(self._package(*package) for package in record.packages.items()),
        )

    def _package(self, name: str, version: str) -> str:
        page = "https://docs.python.org/release" if name == "python" else f"https://pypi.org/project/{name}"
        return self.add(
            f"{page}/{quote(version)}/",
            "SoftwareApplication",
            name=name,
            softwareVersion=version,
            url=references([f"{page}/"]),
        )

    def _workflow(self) -> None:
        """The workflow: its parameters, its steps, and the file that Snakemake reads."""
        for stage, kinds in self.parameters.items():
            for key, found in kinds.items():
                kind = sorted(found) if len(found) > 1 else next(iter(found))
                self.add(f"#{stage}.{key}", "FormalParameter", name=key, additionalType=kind)
            for tool in self.tools[stage]:
                self.entities[tool]["input"] = references(f"#{stage}.{key}" for key in kinds)
        for stage, tools in self.tools.items():
            self.add(f"#step/{stage}", "HowToStep", name=stage, workExample=references(sorted(tools)))
        self.add(
            LANGUAGE,
            "ComputerLanguage",
            name="Snakemake",
            identifier=references(["https://snakemake.github.io"]),
            url=references(["https://snakemake.github.io"]),
        )
        rules = {path: state.sha256 for path, state in self.payload.items() if path.startswith((MAIN, "rules/"))}
        self.entities[MAIN] |= {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "Self-Refine Instruction-Tuning",
            "description": "The workflow when the crate was made; the code that each job ran is at its tool's url.",
            "version": digest(rules),
            **({"url": references([README])} if README in self.payload else {}),
            "conformsTo": references(["https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"]),
            "programmingLanguage": references([LANGUAGE]),
            "hasPart": references(sorted(tool for tools in self.tools.values() for tool in tools)),
            "step": references(f"#step/{stage}" for stage in self.tools),
        }

    def _run(self) -> None:
        """All jobs together as one run of the workflow."""
        records = self.records.values()
        read = sorted(
            {(path, state.sha256): state for record in records for path, state in record.inputs.items()}.items()
        )
        given = [self._seen_file(path, state) for (path, _), state in read if not path.startswith(f"{self.results}/")]
        # The results of each study, under their names.
        below = (path.split("/", 2) for path in self.payload if path.startswith(f"{self.results}/"))
        named = {"/".join(parts): parts[2] for parts in below if len(parts) == 3 and parts[1] != NAME}
        configurations = [path for path, name in named.items() if name == LISTINGS["configuration"]]
        made = [path for path, name in named.items() if name.startswith(FINAL)]
        self.add(
            "#run",
            "CreateAction",
            name="Run of the workflow",
            description=f"{len(records)} jobs, in one or more invocations of Snakemake.",
            instrument=references([MAIN]),
            object=references([*map(quote, configurations), *given]),
            result=references(map(quote, made)),
            startTime=in_iso(min(record.started for record in records)),
            endTime=in_iso(max(map(end_of, records))),
        )
        for stage, actions in self.actions.items():
            self.add(
                f"#control/{stage}",
                "ControlAction",
                name=f"Jobs of {stage}: {len(actions)}",
                instrument=references([f"#step/{stage}"]),
                object=references(actions),
            )
        versions = {record.packages["snakemake"] for record in records if "snakemake" in record.packages}
        engines = [self._package("snakemake", version) for version in sorted(versions)]
        self.add(
            "#engine",
            "OrganizeAction",
            name="Snakemake",
            instrument=references(engines or [self.add("#snakemake", "SoftwareApplication", name="snakemake")]),
            object=references(f"#control/{stage}" for stage in self.actions),
            result=references(["#run"]),
        )
