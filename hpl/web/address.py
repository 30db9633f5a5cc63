"""A question to a gallery as the address of its page holds it, so that it can be bookmarked, sent and gone back to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlencode

from hpl.files import HplError
from hpl.search.query import Query, QueryPicture

MOST_RESULTS, _MOST_GIVEN, _MOST_CHARACTERS = 200, 32, 1000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an address asks.

    Attributes:
        q: the sentence; `unlike`: what it should not be, a sentence.
        like, wrong: ids of pictures of the gallery that show the person, and that do not.
        upload: names of uploaded pictures of the person.
        camera: only these; `other`: none by which the query pictures were taken.
        after, before: times; `where`: ``column=value``.
        k: results at most.
    """

    q: str = ""
    unlike: str = ""
    like: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    upload: tuple[str, ...] = ()
    camera: tuple[str, ...] = ()
    other: bool = False
    after: str = ""
    before: str = ""
    where: tuple[str, ...] = ()
    k: int = 40

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is asked: neither a sentence nor a picture of the person."""
        return not (self.q or self.like or self.upload)

    def address(self, path: str = "/", **changes: Any) -> str:
        """Write the address of this question, with changes."""
        asked, plain, parts = replace(self, **changes), Asked(), []
        for each in fields(asked):
            value = getattr(asked, each.name)
            if value != getattr(plain, each.name):
                values = value if isinstance(value, tuple) else [int(value) if isinstance(value, bool) else value]
                parts += [(each.name, one) for one in values]
        return f"{path}?{urlencode(parts)}" if parts else path

    def marked(self, name: str, picture: int) -> str:
        """Write the address of this question after a picture is marked, or no longer marked, as `name`: like or wrong."""
        mine, others = getattr(self, name), "wrong" if name == "like" else "like"
        new = tuple(each for each in mine if each != picture) if picture in mine else (*mine, picture)
        changes: dict[str, Any] = {name: new, others: tuple(each for each in getattr(self, others) if each != picture)}
        return self.address(**changes)

    def query(self, uploaded: Callable[[str], bytes]) -> Query:
        """Make the question of it. HplError at a value that cannot be; `uploaded` finds a picture by its name."""
        pictures: list[QueryPicture] = [*self.like, *(uploaded(name) for name in self.upload)]
        return Query(
            text=self.q or None,
            pictures=pictures,
            against=[self.unlike] if self.unlike else [],
            against_pictures=self.wrong,
            k=self.k,
            cameras=self.camera,
            other_cameras=self.other,
            after=self.after or None,
            before=self.before or None,
            where=dict(_pair(each) for each in self.where),
        )


def read_asked(given: Iterable[tuple[str, str]]) -> Asked:
    """Read names and values of an address or a form; a name that is not known, and an empty value, are passed over.

    Raises:
        HplError: a value that cannot be, or more of them than a question may hold.
    """
    many: dict[str, list[str]] = {}
    for name, value in given:
        value = value.strip()
        if value and value not in many.setdefault(name, []):
            many[name].append(value)
    kinds = {each.name: each.default for each in fields(Asked)}
    found: dict[str, Any] = {}
    for name, values in many.items():
        if name not in kinds:
            continue
        if len(values) > _MOST_GIVEN or any(len(value) > _MOST_CHARACTERS for value in values):
            raise HplError(f"{name}: expected at most {_MOST_GIVEN} values of at most {_MOST_CHARACTERS} characters")
        if name in ("like", "wrong"):
            found[name] = tuple(_number(name, value) for value in values)
        elif isinstance(kinds[name], tuple):
            found[name] = tuple(values)
        elif name == "k":
            found[name] = min(_number(name, values[-1]), MOST_RESULTS)
        else:
            found[name] = values[-1] != "0" if name == "other" else values[-1]
    return Asked(**found)


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise HplError(f"{name}: {value!r}; expected a number")
    return int(value)


def _pair(condition: str) -> tuple[str, str]:
    name, equals, value = condition.partition("=")
    if not equals or not name:
        raise HplError(f"where: {condition!r}; expected column=value")
    return name, value


@dataclass
class Uploads:
    """Uploaded pictures, in memory alone: by a name made of their content, the oldest going when they are too much together."""

    most_bytes: int = 128 * 2**20
    held: dict[str, bytes] = field(default_factory=dict)

    def keep(self, name: str, data: bytes) -> None:
        """Keep a picture as the newest."""
        self.held.pop(name, None)
        self.held[name] = data
        while sum(map(len, self.held.values())) > self.most_bytes and len(self.held) > 1:
            del self.held[next(iter(self.held))]

    def find(self, name: str) -> bytes:
        """Return a picture. HplError if it is not, or no longer, held."""
        if name not in self.held:
            raise HplError("the uploaded picture is no longer held (the server keeps it in memory alone); choose it again")
        return self.held[name]
