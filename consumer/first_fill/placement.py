"""In which partition the stream will look for a contact: the one in which its producer puts the contact's key.

Nobody tells how a topic is filled, so it is found out from what stands in it. A wrong guess would have the stream send
everything once more, so there is none: who cannot tell says so.
"""

from collections.abc import Collection

from consumer.core.partitioner import PARTITIONERS, Partitioner, fitting
from consumer.errors import FatalError

_ASK = f"name it with --partitioner ({', '.join(PARTITIONERS)})"


def choose(samples: Collection[tuple[bytes, int]], partitions: int, named: str | None) -> Partitioner:
    """The partitioner of a topic.

    Args:
        samples: Keys of records with the partitions in which they stand.
        partitions: Of the topic.
        named: What `--partitioner` says, None when it was not given.

    Raises:
        FatalError: It cannot be told, or is not the named one.
    """
    if partitions == 1:
        return PARTITIONERS["murmur2"]  # there is only one answer
    fit = fitting(samples, partitions)
    if not fit:
        raise FatalError(
            f"the keys of the source topic are spread over its {partitions} partitions in no known way: "
            "were partitions added, or are its keys not external ids?"
        )
    if named is not None and named not in fit:
        raise FatalError(f"the source topic is not filled by {named}: its records fit {', '.join(fit)}")
    if named is None and len(fit) > 1:
        few = "no record with a key" if not samples else f"too few records with keys ({len(samples)})"
        raise FatalError(f"the source topic has {few} to tell by which partitioner it is filled: {_ASK}")
    return PARTITIONERS[named or fit[0]]
