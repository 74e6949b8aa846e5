"""The benchmark measures what it says: its events, its clock, its checks, its pictures."""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pytest

from bench import end_to_end, events, latency, memory, plots, process, programs, rolling, sink
from bench.peers import job
from consumer.core.decode import decode
from consumer.core.envelopes.native import native
from consumer.core.validate import validate
from consumer.demo.samples import Kind, Samples
from consumer.errors import ValidationError
from consumer.model import ChangeEvent, Record
from consumer.pipeline.readers import make_reader
from consumer.settings import packaged_schemas
from tests.envelopes import CONFLUENT

COUNT = 10_000
WITHOUT_RULES = {Kind.DELETE, Kind.TOMBSTONE, Kind.UNDECODABLE}
SVG = "{http://www.w3.org/2000/svg}"


def _fingerprints(workload: events.Workload) -> Counter[bytes]:
    return Counter(job.fingerprint(each) for each in workload.events(COUNT))


def _workload(name: str) -> events.Workload:
    return next(each for each in events.WORKLOADS if each.name == name)


@pytest.mark.parametrize("workload", events.WORKLOADS, ids=lambda each: each.name)
def test_a_workload_has_as_many_events_as_asked_for_and_is_the_same_each_time(workload):
    """Programs are compared on the same events: a generator makes the count, and twice the same."""
    once = list(workload.events(COUNT))
    assert len(once) == COUNT
    assert once == list(workload.events(COUNT))
    assert {name for each in once for name in each["attributes"]} == set(workload.attributes)


def test_nine_in_ten_events_of_a_replayed_topic_are_duplicates():
    """Each of a tenth of the events is there ten times."""
    assert set(_fingerprints(_workload("replayed")).values()) == {10}


def test_the_hundredth_part_of_the_contacts_gets_half_of_the_changes():
    """That is what makes keys hot; every one of their changes is another one."""
    workload = _workload("hot keys")
    changes = Counter(each["externalId"] for each in workload.events(COUNT))
    hot = [count for count in changes.values() if count > 1]
    assert sum(hot) == COUNT / 2
    assert len(hot) / len(changes) == pytest.approx(0.01, rel=0.05)
    assert set(_fingerprints(workload).values()) == {1}


def test_an_everyday_stream_has_duplicates_and_events_that_break_a_rule():
    """A tenth and a twentieth."""
    everyday = list(events.everyday(COUNT))
    assert sum(bool(job.violations(each)) for each in everyday) / COUNT == pytest.approx(0.05, rel=0.1)
    assert 1 - len(_fingerprints(_workload("everyday"))) / COUNT == pytest.approx(0.1, rel=0.15)


def test_wide_events_have_forty_fields():
    """Five columns of every contact, and attributes."""
    (event,) = events.wide(1)
    assert len(job.contact(event, "list")["data"]) == 40


def test_the_list_must_hold_what_the_last_valid_event_of_each_contact_says():
    """An event that breaks a rule changes nothing."""
    bad = events.event(1, phone="5550100")
    assert events.contacts_after([events.event(1), events.event(1, consent=False), bad]) == {
        "003000000000000001": ("+14150000001", "false")
    }


def test_records_are_what_the_peers_decode():
    """Wire format and schema are those of the program."""
    event = events.event(7, consent=False)
    ((key, value),) = events.records([event])
    assert key == b"003000000000000007"
    assert job.decoded(value) | {"occurredAt": None} == event | {"occurredAt": None}


def test_the_peers_have_our_six_rules():
    """The same job: on the demo's events of every kind they name the reasons that we name."""
    schema = (packaged_schemas() / "crm_contact_change.avsc").read_text()
    reader = make_reader(schema, native)
    samples = [each for each in Samples(seed=3).take(2_000) if each.kind not in WITHOUT_RULES]
    records = [Record("topic", 0, offset, 0, each.key, each.value) for offset, each in enumerate(samples)]
    decoded = decode(records, {1: reader}, CONFLUENT)
    ours = validate([each for each in decoded.results if isinstance(each, ChangeEvent)], ())
    expected = [list(each.reasons) if isinstance(each, ValidationError) else [] for each in ours]
    assert [job.violations(job.decoded(each.value or b"")) for each in samples] == expected
    assert {len(each) for each in expected} == {0, 1}


def _request(received: float, *contacts: events.Event) -> sink.Request:
    return sink.Request(received, received + 1, [job.contact(each, "list") for each in contacts])


def _audited(offset: int, outcome: str = "delivered") -> dict[str, Any]:
    return {"source": {"partition": 0, "offset": offset}, "outcome": outcome}


def _loaded(*loaded: events.Event) -> end_to_end.Loaded:
    contacts, unsent = events.contacts_after(loaded), events.unsent_of(loaded)
    return end_to_end.Loaded(_workload("all new"), len(loaded), "topic", contacts, unsent)


ONE, OTHER = events.event(1), events.event(2)


def test_a_run_counts_when_all_is_told_and_all_is_applied():
    """One audit event for each record, and each contact as it must be."""
    end_to_end._check(_loaded(ONE, OTHER), [_request(1, ONE, OTHER)], [_audited(0), _audited(1)])


@pytest.mark.parametrize(
    ("requests", "audited"),
    [
        ([_request(1, ONE, OTHER)], [_audited(0)]),
        ([_request(1, ONE, OTHER)], [_audited(0), _audited(0)]),
        ([_request(1, ONE, OTHER)], [_audited(0), _audited(1), _audited(1)]),
        ([_request(1, ONE)], [_audited(0), _audited(1)]),
        ([_request(1, ONE, OTHER), _request(2, events.event(1, consent=False))], [_audited(0), _audited(1)]),
        ([_request(1, ONE, OTHER, events.event(3))], [_audited(0), _audited(1)]),
    ],
    ids=["untold", "one told twice", "told twice", "not applied", "applied wrongly", "a contact too many"],
)
def test_a_run_that_did_another_job_does_not_count(requests, audited):
    """A program that loses, repeats or confuses changes has no figures."""
    with pytest.raises(RuntimeError):
        end_to_end._check(_loaded(ONE, OTHER), requests, audited)


@pytest.mark.parametrize(
    ("outcomes", "counts"),
    [
        (("delivered", "duplicate", "rejected"), True),
        (("delivered", "delivered", "rejected"), False),
        (("duplicate", "duplicate", "rejected"), False),
        (("delivered", "duplicate", "duplicate"), False),
        (("delivered", "duplicate", "delivered"), False),
    ],
    ids=["told apart", "not deduplicated", "too many duplicates", "rejected as a duplicate", "no rules"],
)
def test_a_run_whose_outcomes_are_not_the_model_s_does_not_count(outcomes, counts):
    """A program that sends duplicates again leaves the same list: it must say as many as there are."""
    loaded = _loaded(ONE, ONE, events.event(2, phone="5550100"))
    told = [_audited(offset, outcome) for offset, outcome in enumerate(outcomes)]
    with nullcontext() if counts else pytest.raises(RuntimeError):
        end_to_end._check(loaded, [_request(1, ONE)], told)


def test_a_duplicate_repeats_the_last_valid_event_of_its_contact():
    """Grant, withdrawal, grant are three changes; what breaks a rule comes between nothing."""
    withdrawn, bad = events.event(1, consent=False), events.event(1, phone="5550100")
    assert events.unsent_of([ONE, withdrawn, ONE, bad, ONE, OTHER]) == {"duplicate": 1, "rejected": 1}


class _Watch(process.Watched):
    """A program that takes half a core."""

    def __init__(self) -> None:
        self.samples = [process.Sample(0, 0.0, 0), process.Sample(200, 100.0, 0)]
        self.peak_rss = 2**21


class _Told:
    """An audit event, as Kafka hands it over, of this time in milliseconds."""

    def __init__(self, offset: int, milliseconds: int) -> None:
        self._event = _audited(offset) | {"type": "record"}
        self._milliseconds = milliseconds

    def value(self) -> bytes:
        return orjson.dumps(self._event)

    def timestamp(self) -> tuple[int, int]:
        return 2, self._milliseconds


@pytest.mark.parametrize(
    ("assigned_at", "first_request", "last_audit", "seconds"),
    [(100, 100.2, 104, 4), (100, 100.2, 101, 1.2), (90, 100.5, 104, 4)],
    ids=["assignment to audit event", "to the last answer", "restored in between"],
)
def test_the_clock_is_that_of_broker_and_sink(assigned_at, first_request, last_audit, seconds):
    """What a program says of itself does not count, nor how long it takes to restore."""
    produced = list(events.all_new(120))
    told: list[Any] = [_Told(offset, last_audit * 1000 - offset) for offset in range(120)]
    seen = end_to_end.Seen(_Watch(), assigned_at, [_request(first_request, *produced)], told)
    run = end_to_end._figures(_loaded(*produced), programs.OURS, seen)
    assert run.events_per_s == run.contacts_per_s == 120 / seconds
    assert (run.contacts_per_request, run.requests_times_ideal, run.in_flight) == (120, 0.5, 1)
    assert run.cpu_us_per_event == pytest.approx(seconds / 2 / 120 * 1e6, abs=0.1)
    assert run.peak_rss_mb == 2


def test_requests_are_counted_beside_as_few_as_there_could_be():
    """And how many were under way at once: three of a second each, of which two overlap half of the time."""
    produced = list(events.all_new(240))
    parts = (produced[:100], produced[100:200], produced[200:])
    requests = [_request(received, *part) for received, part in zip((100.0, 100.5, 102.0), parts, strict=True)]
    told: list[Any] = [_Told(offset, 103_000) for offset in range(240)]
    seen = end_to_end.Seen(_Watch(), 100, requests, told)
    run = end_to_end._figures(_loaded(*produced), programs.OURS, seen)
    assert (run.contacts_per_request, run.requests_times_ideal, run.in_flight) == (80, 1, 1)


def test_a_line_that_is_still_being_written_is_no_request(tmp_path: Path):
    """The log is read while the sink writes it."""
    log = tmp_path / "requests.log"
    log.write_bytes(b"1.5 1.75 " + orjson.dumps([{"id": "a b"}]) + b"\n2.0 2.1 [{")
    assert list(sink.requests(log)) == [sink.Request(1.5, 1.75, [{"id": "a b"}])]


@pytest.mark.parametrize(("moment", "seconds"), [(9, 1.0), (10, 1.0), (15, 2.0), (20, 3.0), (30, 7.0), (99, 7.0)])
def test_cpu_time_between_two_samples_is_shared_out(moment, seconds):
    """The clock's moments are not those of the samples; outside of them nothing is made up."""
    samples = [process.Sample(10, 1.0, 0), process.Sample(20, 3.0, 0), process.Sample(30, 7.0, 0)]
    assert process.cpu_s_at(samples, moment) == seconds


def test_a_change_is_applied_when_it_is_answered_first():
    """A repeat does not make it later, and grant and withdrawal are two changes."""
    withdrawn = events.event(1, consent=False)
    requests = iter([_request(1, ONE), _request(3, ONE), _request(5, withdrawn)])
    name = ONE["externalId"]
    assert latency.applied_at(requests) == {(name, "true"): 2, (name, "false"): 6}


def test_a_change_that_was_never_applied_is_no_figure_left_out():
    """Each that came in has its wait; one that has none is an error."""
    name = ONE["externalId"]
    grant, withdrawal = (name, "true"), (name, "false")
    assert latency.waits_ms({grant: 1.0}, {grant: 1.5, withdrawal: 9.0}) == {grant: 500}
    with pytest.raises(RuntimeError, match="1 of 2"):
        latency.waits_ms({grant: 1.0, withdrawal: 2.0}, {grant: 1.5})


@pytest.mark.parametrize(("percent", "figure"), [(50, 50.0), (99, 99.0), (100, 100.0)])
def test_a_percentile_is_one_of_the_figures(percent, figure):
    """The nearest rank: no figure between two that were measured."""
    assert latency.percentile([float(number) for number in range(1, 101)], percent) == figure


def test_the_slope_is_that_of_the_best_line():
    """Noise that goes up and down alike does not bend it."""
    assert memory.slope([(0, 1), (1, 2), (2, 5), (3, 6)]) == pytest.approx(1.8)


def test_a_pause_counts_however_late_it_ends():
    """One that is still going on when the restart is long over is the longest of all."""
    settled = {0: [0.0, 1.0, 11.0, 99.0], 1: [0.0, 2.0, 12.0]}
    assert rolling.longest_pauses(settled, began=5.0) == ([1, 2], [10, 88])


def _memory(peak_mb: int, mb_per_minute: float) -> memory.Memory:
    samples = [
        process.Sample(second, 0.0, round((peak_mb - mb_per_minute * (9 - second / 60)) * 2**20))
        for second in range(541)
    ]
    return memory._figures(5_000_000, samples)


@pytest.mark.parametrize(("peak_mb", "mb_per_minute", "counts"), [(240, 1, True), (260, 1, False), (240, 9, False)])
def test_memory_that_is_too_much_or_still_rises_does_not_count(peak_mb, mb_per_minute, counts):
    """Its bound is checked where it is measured."""
    with nullcontext() if counts else pytest.raises(RuntimeError):
        memory._check(_memory(peak_mb, mb_per_minute))


def test_bars_are_as_long_as_their_figures():
    """One scale for all groups, and each figure in words too; a name cannot break the picture."""
    drawn = ET.fromstring(plots.bars("<title>", {"a": {"x": 40.0, "y": 80.0}, "b": {"x": 20.0}}))  # noqa: S314
    lengths = [float(each.attrib["width"]) for each in drawn.iter(f"{SVG}rect")]
    assert [length / plots.BARS_WIDTH for length in lengths] == pytest.approx([0.5, 1.0, 0.25], rel=0.01)
    assert {"<title>", "40", "80", "20"} <= {each.text for each in drawn.iter(f"{SVG}text")}


def test_a_line_starts_at_zero_and_ends_at_its_largest():
    """Zero is the floor of the picture, so that a rise looks as large as it is."""
    drawn = ET.fromstring(plots.line("memory", [(0, 0), (10, 50), (20, 100)], "s", "MB"))  # noqa: S314
    (line,) = drawn.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    floor, middle, top = (y for _, y in points)
    assert floor - middle == pytest.approx(middle - top)
    assert floor == plots._HEIGHT - plots._BELOW
