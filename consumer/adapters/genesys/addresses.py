"""Addresses of files that Genesys names. Touches nothing."""

from yarl import URL

from consumer.properties import is_safe


def safe(text: str) -> URL | None:
    """The address as it was given, since it may be signed; None where contacts may not go: it is not encrypted."""
    return URL(text, encoded=True) if is_safe(text) else None
