"""What readers see instead of the names that a configuration gives to students and teachers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, cast

Row = TypeVar("Row", bound=Mapping[str, Any])
# By column of a table, the section of the configuration that its names are of.
COLUMNS = {"student": "students", "teacher": "teachers", "against_teacher": "teachers"}


class Titled(Protocol):
    """Settings with the titles that the configuration gives."""

    students: dict[str, str]
    teachers: dict[str, str]


class Models(NamedTuple):
    """The titles that the configuration gives, by name; a name without one is spelled by `spell`."""

    students: Mapping[str, str] = {}
    teachers: Mapping[str, str] = {}
    spell: Callable[[str], str] = str

    @classmethod
    def of(cls, settings: Titled, spell: Callable[[str], str] = str) -> "Models":
        """Those of a stage's settings."""
        return cls(settings.students, settings.teachers, spell)

    def student(self, name: object) -> str:
        """What readers see of a student."""
        return self.students.get(str(name)) or self.spell(str(name))

    def teacher(self, name: object) -> str:
        """What readers see of a teacher."""
        return self.teachers.get(str(name)) or self.spell(str(name))

    def either(self, text: str) -> str:
        """What readers see where a name may have been replaced by its title already."""
        return text if text in (*self.students.values(), *self.teachers.values()) else self.spell(text)

    def titled(self, row: Row) -> Row:
        """A row of a table, or a comparison of a claim, with titles in the place of names."""
        seen = {"students": self.student, "teachers": self.teacher}
        shown = {column: seen[of](row[column]) for column, of in COLUMNS.items() if row.get(column)}
        return cast(Row, {**row, **shown})


# Without titles: the configuration's names.
AS_NAMED = Models()
