"""Fixtures that every test may ask for."""

import os
from collections.abc import Iterator

import pytest

from tests.kafka_cluster import KafkaCluster, KafkaMissingError


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """One broker for the whole run: `kafka.bootstrap`, `kafka.create_topic()`.

    Without Java or Maven the test is skipped, or failed where CI=true: there nothing may be skipped.
    """
    cluster = KafkaCluster()
    try:
        cluster.start()
    except KafkaMissingError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    yield cluster
    cluster.stop()
