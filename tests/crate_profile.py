"""What the public RO-Crate validator says of a crate, offline."""

import io
import json

import pytest
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.services import validate
from urllib3 import HTTPResponse

# The terms of the two published contexts that a crate uses, so that nothing is fetched; any other term is refused.
SCHEMA = """
    ComputerLanguage ControlAction CreateAction CreativeWork Dataset HowTo HowToStep OrganizeAction Organization Person
    PropertyValue SoftwareApplication SoftwareSourceCode about additionalType affiliation agent alternateName author contentSize datePublished
    description
    encodingFormat endTime exampleOfWork hasPart identifier instrument license mainEntity mentions name object
    programmingLanguage propertyID publisher result softwareRequirements softwareVersion startTime step unitCode url value version
    workExample
"""
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": {
        **{term: f"http://schema.org/{term}" for term in SCHEMA.split()},
        "File": "http://schema.org/MediaObject",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
        "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
        "FormalParameter": "https://bioschemas.org/FormalParameter",
        "input": "https://bioschemas.org/ComputationalWorkflow#input",
    },
    "https://w3id.org/ro/terms/workflow-run/context": {
        term: f"https://w3id.org/ro/terms/workflow-run#{term}" for term in ("resourceUsage", "sha256")
    },
}


class Contexts(HTTPAdapter):
    """Answers for the contexts' addresses."""

    def send(self, request, **options):
        body = io.BytesIO(json.dumps({"@context": CONTEXTS[request.url]}).encode())
        headers = {"Content-Type": "application/ld+json"}
        return self.build_response(request, HTTPResponse(body, headers, 200, preload_content=False))


@pytest.fixture(scope="session")
def profile_issues(tmp_path_factory):
    """What the public validator, offline, finds against the profile: (severity, message) of each issue."""
    cache = tmp_path_factory.mktemp("cache") / "http"
    session = CachedSession(str(cache), expire_after=-1)
    session.mount("https://", Contexts())
    for address in CONTEXTS:
        session.get(address)

    def find(crate) -> set[tuple[str, str]]:
        settings = ValidationSettings(
            rocrate_uri=str(crate),
            profile_identifier="provenance-run-crate-0.5",
            requirement_severity=Severity.RECOMMENDED,
            offline=True,
            cache_path=cache,
        )
        return {(issue.severity.name, issue.message) for issue in validate(settings).get_issues()}

    return find
