"""Checks, before a run's first job, that the Hugging Face hub gives what is to be fetched from it."""

import urllib.parse
from collections.abc import Iterable

from selfrefine.errors import UserError
from selfrefine.schema.source import HUB
from selfrefine.study.artifact import Artifact
from selfrefine.study.design import Study
from selfrefine.study.hub_sources import HubSource, hub_sources

# What every repository of a model has, and no gated one shows to everybody.
CONFIG = "config.json"
# Files that a gated repository shows to everybody.
SHOWN = ("README.md", ".gitattributes")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
SECONDS = 10


def check_access(study: Study, fetched: Iterable[Artifact]) -> None:
    """`UserError` for what the hub would refuse, and where it is not reached for what is in no cache.

    Each repository is asked once, for one file. That tells of access, of the revision and of the file.
    """
    by_page: dict[str, list[HubSource]] = {}
    for one in hub_sources(study, fetched):
        by_page.setdefault(one.page, []).append(one)
    faults: list[str] = []
    lost: list[str] = []
    why = ""
    for found in by_page.values():
        # Where the hub was not reached once, it is not asked again: each time may take seconds.
        if not why:
            try:
                faults += _refused(found[0])
                continue
            except NotReachedError as error:
                why = str(error)
        if not all(map(_is_cached, found)):
            lost.append(f"{found[0].key} ({found[0].repository})")
    if lost:
        faults.append(
            f"the Hugging Face hub is not reached ({why}), and these are not in its cache here: {', '.join(lost)}; start "
            "snakemake where there is a network, or name a mirror in HF_ENDPOINT"
        )
    if faults:
        raise UserError("; ".join(faults))


class NotReachedError(Exception):
    """The hub did not answer, for a reason that says nothing of a repository."""


def _refused(wanted: HubSource) -> list[str]:
    """Why the hub does not give a file; nothing if it does. `NotReachedError` if it does not answer."""
    from huggingface_hub import errors as hub
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

    where = f"{wanted.key}: {wanted.repository}"
    try:
        if (file := _file_of(wanted)) is not None:
            member, revision = file
            url = hf_hub_url(wanted.repository, member, repo_type=wanted.kind, revision=revision)
            get_hf_file_metadata(url, timeout=SECONDS)
        return []
    except hub.GatedRepoError:
        state = f"no token is here: {LOGIN}" if get_token() is None else f"the token that is here has none: {LOGIN}"
        return [
            f"{where} is gated on the Hugging Face hub: ask for access at {wanted.page}, accept its licence ({state})"
        ]
    except hub.RepositoryNotFoundError:
        return [
            f"{where} is not on the Hugging Face hub, or private: correct the name, or {LOGIN} as one who may read it"
        ]
    except hub.RevisionNotFoundError:
        return [f"{where} has no such revision: {wanted.page}/commits/main lists them"]
    except hub.EntryNotFoundError:
        return [f"{where} has no such file at this revision: {wanted.page}/tree/main lists them"]
    except Exception as error:  # whatever the library for HTTP raises without a network
        raise NotReachedError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def _file_of(wanted: HubSource) -> tuple[str, str] | None:
    """A file of a repository that only those with access see, and its revision; None if there is none to ask for."""
    if wanted.source is None:
        from huggingface_hub import HfApi

        listed = HfApi().dataset_info(wanted.repository, timeout=SECONDS).siblings or []
        hidden = (each.rfilename for each in listed if each.rfilename not in SHOWN)
        return next(((name, "main") for name in hidden), None)
    found = HUB.fullmatch(wanted.source.source)
    assert found, "a source of the hub"
    member = found["member"] or CONFIG
    member = member.format(n=1) if wanted.source.parts > 1 else member
    return member, urllib.parse.unquote(found["revision"])


def _is_cached(wanted: HubSource) -> bool:
    """Whether the hub's cache on this machine has the file; a task of lm-eval looks into a cache of its own."""
    from huggingface_hub import try_to_load_from_cache

    if wanted.source is None:
        return True
    file = _file_of(wanted)
    assert file is not None
    member, revision = file
    found = try_to_load_from_cache(wanted.repository, member, revision=revision, repo_type=wanted.kind)
    return isinstance(found, str)
