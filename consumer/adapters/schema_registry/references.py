"""Fetches what a schema refers to, and what that refers to, and puts it in place.

It answers for each being fetched once, and for their number and size being limited. Touches nothing but the registry,
by what it is given.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from consumer.adapters.schema_registry.inlining import inlined
from consumer.core.avro_schema import MAX_SCHEMA_CHARACTERS
from consumer.errors import undecodable
from consumer.formats import SchemaReference

_MAX_REFERENCES = 256
"""What a schema may refer to, directly or not."""


class Part(NamedTuple):
    """A schema as a registry has it.

    Attributes:
        text: As JSON, in which names of types stand for what it refers to.
        paths: Where the registry has these.
    """

    text: str
    paths: Sequence[str]


Fetch = Callable[[str], Awaitable[Part | None]]
"""Gives what is at a path; None when the registry lacks it. Raises `DecodeError` and `TransientError`."""


async def whole(part: Part, fetch: Fetch, reference: SchemaReference) -> str | None:
    """The schema without references; None when the registry lacks some of what it refers to.

    Args:
        part: The schema.
        fetch: As above.
        reference: Names the schema in errors.

    Raises:
        DecodeError: There are too many of them, or they do not fit.
        TransientError: The registry cannot tell now.
    """
    if not part.paths:
        return part.text
    texts = await _in_order(part, fetch, reference)
    return None if texts is None else inlined(texts, reference)


async def _in_order(part: Part, fetch: Fetch, reference: SchemaReference) -> list[str] | None:
    """Texts, each behind what it refers to, unless that leads back to it."""
    texts: list[str] = []
    seen: set[str] = set()
    way: list[tuple[str, Iterator[str]]] = [(part.text, iter(part.paths))]
    while way:
        text, paths = way[-1]
        path = next((each for each in paths if each not in seen), None)
        if path is None:
            texts.append(text)
            way.pop()
            continue
        seen.add(path)
        found = await fetch(path)
        if found is None:
            return None
        way.append((found.text, iter(found.paths)))
        _check_size(len(seen), [*texts, *(each for each, _ in way)], reference)
    return texts


def _check_size(count: int, texts: Sequence[str], reference: SchemaReference) -> None:
    if count > _MAX_REFERENCES:
        raise undecodable(f"schema {reference} refers to more than {_MAX_REFERENCES} others")
    if sum(map(len, texts)) > MAX_SCHEMA_CHARACTERS:
        raise undecodable(f"schema {reference} has more than {MAX_SCHEMA_CHARACTERS:,} characters with its references")
