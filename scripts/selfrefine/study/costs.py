"""The prices and energy of a study's GPU hours: its own, or those of config/assumptions.yaml."""

import functools
from pathlib import Path

from selfrefine.schema.assumptions import Assumptions, Costs
from selfrefine.schema.config import Configuration
from selfrefine.study.yaml_files import read_yaml

ASSUMPTIONS = Path(__file__).resolve().parents[3] / "config/assumptions.yaml"


def costs_of(study: Configuration, assumed: Costs | None = None) -> Costs:
    """A study's own section `costs`; without one, what is assumed, or shipped."""
    return study.costs or assumed or _shipped()


@functools.cache
def _shipped() -> Costs:
    return Assumptions.read(read_yaml(ASSUMPTIONS)).costs
