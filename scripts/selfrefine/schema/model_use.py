"""How a study uses a model: what must be checked of its files before anything is paid for."""

from selfrefine.schema.base import Strict
from selfrefine.schema.generation import ChatTemplate


class ModelUse(Strict):
    """A student or a teacher that a model answers for."""

    key: str
    """Its section in the configuration: students.NAME or teachers.NAME."""
    system: str | None = None
    chat_template: ChatTemplate | None = None
    targets: dict[str, list[str]] = {}
    """The modules that are adapted, by the key that names them; without an entry for all-linear."""
