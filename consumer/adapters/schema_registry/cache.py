"""Schemas on disk, so that a restart does not need the registry for what is known.

It answers for a schema being taken only for the registry that gave it, and only whole. An id never means another
schema, so nothing expires. A disk that refuses is no reason to stop. Touches one directory::

    <directory>/<registry, hashed>/<reference>.json     {"schema": text}
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from consumer.formats import SchemaReference


class SchemaCache:
    """The schemas of one registry."""

    def __init__(self, directory: Path, registry: str) -> None:
        """Prepare; nothing is made before the first schema is kept.

        Args:
            directory: Of the schemas of all registries.
            registry: Its URL without credentials.
        """
        self._directory = directory / hashlib.sha256(registry.encode()).hexdigest()[:16]

    def get(self, reference: SchemaReference) -> str | None:
        """The schema; None when it is not kept, or not whole."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            text = json.loads(self._path(reference).read_text(encoding="utf-8"))["schema"]
            if isinstance(text, str):
                return text
        return None

    def put(self, reference: SchemaReference, text: str) -> None:
        """Keep a schema."""
        path = self._path(reference)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".new")
            beside.write_text(json.dumps({"schema": text}), encoding="utf-8")
            beside.replace(path)

    def _path(self, reference: SchemaReference) -> Path:
        return self._directory / f"{str(reference).replace(':', '-')}.json"
