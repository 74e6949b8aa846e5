"""A soak of seconds: the list and the audit are held against what was told; growth is for `make soak`."""

import pytest

from tests.kafka_cluster import KafkaCluster
from tests.soak import EVENTS_PER_S, soak

# A withdrawal behind a request whose answer is lost is sent once more after 90 s, and settles then.
pytestmark = [pytest.mark.timeout(300)]


async def test_a_consumer_at_work_leaves_the_list_and_the_audit_as_they_must_be(kafka: KafkaCluster) -> None:
    """Ten seconds of changes of 500 contacts, beside faults of Genesys."""
    figures = await soak(kafka, 1 / 6, contacts=500)
    assert figures.events > 5 * EVENTS_PER_S
    assert 0 < figures.contacts <= 500
