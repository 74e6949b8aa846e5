"""Fixtures that every test may ask for, and the watch over what they ask of Genesys."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.contract_watch import Plugin
from tests.integration.helm import helm
from tests.kafka_cluster import KafkaCluster, KafkaMissingError
from tests.partial_events import partial_events

# A slow machine is no reason to fail: speed is shown in bench/.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

__all__ = ["helm", "kafka", "partial_events"]


def pytest_configure(config: pytest.Config) -> None:
    """Hold every request of our client against the contract."""
    config.pluginmanager.register(Plugin(), "contract-watch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what may take longest: several processes share the work, and none is to be left with it at the end."""
    items.sort(key=_time_limit, reverse=True)


def _time_limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else float(item.config.getini("timeout"))


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
