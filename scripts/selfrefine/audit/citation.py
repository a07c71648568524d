"""Reads CITATION.cff: who a crate is by, who publishes it, and where its software is at home."""

from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from selfrefine.errors import UserError

FILE = "CITATION.cff"
# An entity of a crate, or a reference to one.
Entity = dict[str, Any]


class Citation(NamedTuple):
    """What a citation says, as entities of a crate."""

    authors: tuple[Entity, ...] = ()
    """Persons and organisations, in their order."""
    organisations: tuple[Entity, ...] = ()
    """All that are named: authors, then what persons belong to. The first one publishes."""
    software: str | None = None
    """The address of the software."""


def read_citation(path: Path) -> Citation:
    """What a CITATION.cff says, empty if there is none; `UserError` if it cannot be read."""
    if not path.exists():
        return Citation()
    import yaml  # what needs no citation works without it

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed = [dict(author) for author in content["authors"]]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a citation with a list of authors ({str(error).splitlines()[0]})") from None
    own = [_organisation(one["name"], one.get("website")) for one in listed if "name" in one]
    known = {one["name"]: one for one in own}
    authors = []
    for author in listed:
        if "name" in author:
            authors.append(known[author["name"]])
        else:
            authors.append(_person(path, author))
            if affiliation := author.get("affiliation"):
                organisation = known.setdefault(affiliation, _organisation(affiliation, None))
                authors[-1]["affiliation"] = {"@id": organisation["@id"]}
    software = next((content[key] for key in ("repository-code", "repository", "url") if content.get(key)), None)
    return Citation(tuple(authors), tuple(known.values()), software)


def _person(path: Path, author: dict[str, Any]) -> Entity:
    parts = ("given-names", "name-particle", "family-names", "name-suffix")
    name = " ".join(str(author[part]) for part in parts if author.get(part)) or author.get("alias")
    if not name:
        raise UserError(f"{path}: an author has neither a name nor family-names")
    return {"@id": author.get("orcid") or author.get("website") or f"#{quote(name)}", "@type": "Person", "name": name}


def _organisation(name: str, website: str | None) -> Entity:
    url = {"url": website} if website else {}
    return {"@id": website or f"#{quote(name)}", "@type": "Organization", "name": name, **url}
