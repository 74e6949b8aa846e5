"""What settings contradict each other in. Each is valid by itself; one that is not, or is not set, is None here.

Touches nothing.
"""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from consumer import properties
from consumer.formats import EnvelopeName, PerTopic
from consumer.properties import Properties


def conflicts(known: Mapping[str, object]) -> list[str]:
    """A sentence for each contradiction.

    Args:
        known: Values by name of the setting in lower case.
    """
    return [
        *_shared_topics(known),
        *_repeated_sources(known),
        *_requests_longer_than_the_session(known),
        *_topics_that_are_no_source(known),
        *_release_without_list(known),
        *_password_without_user(known),
        *_mapping_of_native_events(known),
        *(f"SCHEMA_REGISTRY_PROPERTIES_FILE: {problem}" for problem in _of_the_registry(known)),
    ]


def _shared_topics(known: Mapping[str, object]) -> list[str]:
    """Topics of which two settings make use."""
    topics = [known["kafka_audit_topic"], known["kafka_dead_letter_topic"], known["kafka_changelog_topic"]]
    every = [*topics, *set(_sources(known))]
    shared = sorted({str(topic) for topic in every if topic is not None and every.count(topic) > 1})
    return [f"topic {topic}: named by two settings; each needs its own" for topic in shared]


def _repeated_sources(known: Mapping[str, object]) -> list[str]:
    every = _sources(known)
    return [
        f"KAFKA_SOURCE_TOPICS: {topic} is named more than once"
        for topic in sorted(set(every))
        if every.count(topic) > 1
    ]


def _sources(known: Mapping[str, object]) -> tuple[str, ...]:
    topics = known["kafka_source_topics"]
    return topics if isinstance(topics, tuple) else ()


def _requests_longer_than_the_session(known: Mapping[str, object]) -> list[str]:
    """A request must be over before another consumer can own its partition, or it could land after a newer one."""
    of_kafka, limit_s = known["kafka_properties_file"], known["genesys_request_timeout_s"]
    session_ms = of_kafka.get("session.timeout.ms", "") if isinstance(of_kafka, Properties) else ""
    if not (isinstance(limit_s, int) and re.fullmatch("[0-9]{1,18}", session_ms) and int(session_ms) < limit_s * 1000):
        return []
    return [f"GENESYS_REQUEST_TIMEOUT_S: {limit_s} s is longer than session.timeout.ms={session_ms} of Kafka"]


def _topics_that_are_no_source(known: Mapping[str, object]) -> list[str]:
    """Topics for which something is chosen, and which are no source."""
    sources = known["kafka_source_topics"]
    chosen = {name: known[name] for name in ("source_framing", "source_key", "source_envelope", "fuse_releases")}
    named = {name: choice.named if isinstance(choice, PerTopic) else choice for name, choice in chosen.items()}
    return [
        f"{name.upper()}: {topic} is not in KAFKA_SOURCE_TOPICS"
        for name, topics in named.items()
        if isinstance(topics, Mapping) and isinstance(sources, tuple)
        for topic in sorted(topics.keys() - {*sources})
    ]


def _release_without_list(known: Mapping[str, object]) -> list[str]:
    if known["genesys_dnc_release"] is True and known["genesys_dnc_list"] is None:
        return ["GENESYS_DNC_RELEASE: there is no do-not-call list; set GENESYS_DNC_LIST too, or neither"]
    return []


def _mapping_of_native_events(known: Mapping[str, object]) -> list[str]:
    envelopes = known["source_envelope"]
    if not known["source_mapping"] or not isinstance(envelopes, PerTopic):
        return []
    if {envelopes.default, *envelopes.named.values()} != {EnvelopeName.NATIVE}:
        return []
    return [
        "SOURCE_MAPPING: native events are not mapped; set SOURCE_ENVELOPE too (outbox for flat records), or neither"
    ]


def _password_without_user(known: Mapping[str, object]) -> list[str]:
    url, user = known["schema_registry_url"], known["schema_registry_username"]
    if not known["schema_registry_password"] or user or (isinstance(url, str) and urlsplit(url).username):
        return []
    return ["SCHEMA_REGISTRY_PASSWORD: there is no user; set SCHEMA_REGISTRY_USERNAME too, or neither"]


def _of_the_registry(known: Mapping[str, object]) -> Iterator[str]:
    """What the properties of the registry's client contradict in the settings."""
    chosen, url = known["schema_registry_properties_file"], known["schema_registry_url"]
    if not isinstance(chosen, Properties) or not chosen:
        return
    if not isinstance(url, str):
        yield "there is no registry; set SCHEMA_REGISTRY_URL too, or neither"
        return
    registry = urlsplit(url)
    if properties.SOURCE in chosen and (registry.username or known["schema_registry_username"]):
        yield f"{properties.SOURCE} is one way to log in, SCHEMA_REGISTRY_USERNAME another; choose one"
    if properties.SOURCE in chosen and properties.is_open(registry.scheme, registry.hostname):
        yield "a token goes over plain http only to loopback: name SCHEMA_REGISTRY_URL by https://"
    useless = {name for name in chosen if name.startswith("ssl.")}
    if chosen.get(properties.SOURCE) == properties.FETCHED:
        useless.discard(properties.CA)
    if registry.scheme == "http" and useless:
        yield f"{', '.join(sorted(useless))} cannot be used, since SCHEMA_REGISTRY_URL is plain http"
