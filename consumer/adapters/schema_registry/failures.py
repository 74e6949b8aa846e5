"""What may be told of an error that kept an answer from being read. Touches nothing.

Texts of the HTTP library are left out, since they quote URLs and what came over the wire.
"""

import aiohttp

from consumer.adapters.schema_registry.answers import UnusableError


def why(error: Exception) -> str:
    """The error's type, and what this project, the operating system or TLS says of it."""
    said = str(error) if isinstance(error, UnusableError) else _system(error)
    return f"{type(error).__name__} ({said})" if said else type(error).__name__


def _system(error: Exception) -> str | None:
    """Such as a refused connection, an unknown name, or a certificate that is not believed."""
    below = error if isinstance(error, aiohttp.ClientConnectorError) else error.__cause__
    return below.strerror if isinstance(below, OSError) else None
