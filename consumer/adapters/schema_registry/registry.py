"""Writer schemas from a registry, as known on disk, and from the directory where the registry knows nothing.

It answers for who is asked for what, in which order. Touches nothing itself.
"""

import asyncio
from collections.abc import AsyncGenerator

from consumer.adapters.schema_registry import apicurio, confluent
from consumer.adapters.schema_registry.cache import SchemaCache
from consumer.adapters.schema_registry.directory import LocalSchemas
from consumer.adapters.schema_registry.transport import ForeignNotFoundError, NoSuchPathError, Transport, Version
from consumer.errors import DecodeError, SourceUnavailable
from consumer.formats import SchemaKind, SchemaName, SchemaReference
from consumer.settings import Settings, packaged_schemas


def opened(settings: Settings) -> "LocalSchemas | RegistrySchemas":
    """The schemas that the settings name; nothing is asked yet.

    Raises:
        SettingsError: The directory's are not what they must be.
    """
    if settings.schema_registry_url is None:
        return LocalSchemas(settings.schemas_dir)
    # The ids of the packaged schemas are no registry's: one that does not know an id yet must be asked again.
    local = LocalSchemas(settings.schemas_dir, named=settings.schemas_dir != packaged_schemas())
    transport = Transport.of(settings)
    # `schemas`, of earlier releases, may hold ones in which references were left.
    return RegistrySchemas(transport, SchemaCache(settings.state_dir / "whole-schemas", transport.base), local)


class RegistrySchemas:
    """`consumer.ports.TopicSchemas` from a registry. Concurrent fetches of one schema are one request.

    The registry's word counts: a local schema is taken only for what the registry does not know, or has no name for. It
    never stands in for a registry that is down, since the same id may mean something else there.
    """

    def __init__(self, transport: Transport, cache: SchemaCache, local: LocalSchemas) -> None:
        """Prepare; nothing is asked before the first `fetch`.

        Args:
            transport: To the registry.
            cache: What it said in earlier lives.
            local: Schemas that it does not have.
        """
        self._transport = transport
        self._cache = cache
        self._local = local
        self._flights: dict[SchemaReference, asyncio.Task[str | None]] = {}

    async def fetch(self, reference: SchemaReference) -> str | None:
        flight = self._flights.get(reference)
        if flight is None:
            flight = asyncio.create_task(self._resolve(reference))
            self._flights[reference] = flight
            flight.add_done_callback(lambda _: self._flights.pop(reference))
        return await asyncio.shield(flight)

    async def of_topic(self, topic: str) -> AsyncGenerator[str | DecodeError, None]:
        versions = await self._versions(topic)
        for version in versions:
            try:
                text: str | DecodeError | None = await version()
            except DecodeError as error:
                text = error
            if text is not None:
                yield text
        if not versions:
            async for local in self._local.of_topic(topic):
                yield local

    async def _versions(self, topic: str) -> list[Version]:
        try:
            return await confluent.versions(self._transport, topic)
        except NoSuchPathError:
            return await apicurio.versions(self._transport, topic)

    async def close(self) -> None:
        """Give up what is being asked, and let go of the connections."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._transport.close()

    async def _resolve(self, reference: SchemaReference) -> str | None:
        known = await asyncio.to_thread(self._cache.get, reference)
        if known is not None:
            return known
        text = await self._ask(reference)
        if text is None:
            return await self._local.fetch(reference)
        await asyncio.to_thread(self._cache.put, reference, text)
        return text

    async def _ask(self, reference: SchemaReference) -> str | None:
        """What the registry says; it has no answer for the names that others give."""
        try:
            return await self._asked(reference)
        except (NoSuchPathError, ForeignNotFoundError) as error:
            # Junk may look like a name or an id. It must not hold up its partition for ever where no registry has it.
            if _may_be_junk(reference, error) and await confluent.answers(self._transport):
                return None
            raise

    async def _asked(self, reference: SchemaReference) -> str | None:
        if not isinstance(reference, SchemaName):
            return await confluent.schema(self._transport, reference)
        ask = _ASKED.get(reference.kind)
        return None if ask is None else await ask(self._transport, reference)


def _may_be_junk(reference: SchemaReference, error: SourceUnavailable) -> bool:
    """Whether a 404 may mean that no registry has this.

    Karapace has no GUIDs, and its web server says so in plain text. For all else such an answer is a proxy's.
    """
    named_by_guid = isinstance(reference, SchemaName) and reference.kind is SchemaKind.GUID
    return named_by_guid or isinstance(error, NoSuchPathError)


_ASKED = {SchemaKind.GUID: confluent.schema, **dict.fromkeys(apicurio.KINDS, apicurio.schema)}
"""Who has names that are not ids."""
