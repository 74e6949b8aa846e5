"""In which partition the stream will look for a contact: the one in which its producer puts the contact's records.

Nobody tells how a topic is filled, so it is found out from what stands in it: from the external ids that records tell,
since a key may be something else, as JSON, that leads elsewhere. A wrong guess would have the stream send everything
once more, older grants too, so there is none: who cannot tell says so.
"""

from collections.abc import AsyncIterable, Collection, Sequence
from typing import NamedTuple

from consumer.core.envelopes.choice import TopicEnvelope
from consumer.core.framing import Form
from consumer.core.partitioner import PARTITIONERS, Partitioner, fitting
from consumer.core.results import events_of
from consumer.errors import FatalError
from consumer.model import Position, Record
from consumer.pipeline.readers import decoded, without_registry
from consumer.ports import Schemas

_ASK = f"name it with --partitioner ({', '.join(PARTITIONERS)})"


class Sample(NamedTuple):
    """Where a contact stands.

    Attributes:
        external_id: In UTF-8.
        place: Of a record that tells of it.
    """

    external_id: bytes
    place: Position


Samples = Collection[Sample]


async def sampled(
    records: AsyncIterable[Sequence[Record]], form: Form, envelope: TopicEnvelope, schemas: Schemas
) -> Samples:
    """Whom records tell of, and where. One that cannot be read says nothing.

    Args:
        records: Of one topic, some at a time.
        form: How they are split.
        envelope: What stands around a contact in them.
        schemas: Where writer schemas come from.

    Raises:
        TransientError: The records or their schemas cannot be had now.
        FatalError: They never will.
    """
    known = without_registry(envelope)
    samples: list[Sample] = []
    async for some in records:
        results = await decoded(some, known, form, envelope, schemas)
        for record, result in zip(some, results, strict=True):
            samples += [
                Sample(event.named.encode(), record.position) for event in events_of(result) if event.named is not None
            ]
    return samples


def choose(samples: Samples, partitions: int, named: str | None) -> Partitioner:
    """The partitioner of a topic.

    Args:
        samples: Whom records of it tell of.
        partitions: Of the topic.
        named: What `--partitioner` says, None when it was not given.

    Raises:
        FatalError: It cannot be told, or is not the named one.
    """
    if partitions == 1:
        return PARTITIONERS["murmur2"]  # there is only one answer
    fit = fitting([(sample.external_id, sample.place.partition) for sample in samples], partitions)
    if not fit:
        raise FatalError(_no_known_way(samples, partitions))
    if named is not None and named not in fit:
        raise FatalError(f"the source topic is not filled by {named}: its records fit {', '.join(fit)}")
    if named is None and len(fit) > 1:
        few = "no record of a contact" if not samples else f"too few records of contacts ({len(samples)})"
        raise FatalError(f"the source topic has {few} to tell by which partitioner it is filled: {_ASK}")
    return PARTITIONERS[named or fit[0]]


def _misfits(samples: Samples, of: Partitioner, partitions: int) -> list[Sample]:
    """Those that this partitioner would have put elsewhere."""
    return [sample for sample in samples if of(sample.external_id, partitions) != sample.place.partition]


def _no_known_way(samples: Samples, partitions: int) -> str:
    """How far that is from a way that is known, and a record that is to blame: it may be a single one."""
    misfits = {name: _misfits(samples, of, partitions) for name, of in PARTITIONERS.items()}
    best, odd = min(misfits.items(), key=lambda each: len(each[1]))
    return (
        f"the contacts of the source topic are spread over its {partitions} partitions in no known way: {best} comes "
        f"closest, with {len(samples) - len(odd)} of the newest {len(samples)}, and not with {odd[0].place} "
        "(check --explain shows that record); were partitions added, or are its keys not external ids as text?"
    )
