"""The way of a change to Genesys and back, put together for whoever lets changes in: the stream, or a first fill.

Wires only: admission judges, lanes batch, the gate paces, the dispatcher sends.
"""

from collections.abc import Callable

from consumer.core.batch import Lanes
from consumer.core.delivery import Gate, Throttle
from consumer.model import TopicPartition
from consumer.pipeline.admission import Admission
from consumer.pipeline.dispatch import Dispatcher
from consumer.pipeline.partitions import Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.reports import Reports
from consumer.ports import Sink, Store, Telemetry, TimeAndChance
from consumer.settings import Settings


class Outbound:
    """One contact list's way out.

    Args:
        settings: Sizes and times.
        partitions: The assigned ones.
        store: What was delivered.
        sink: Genesys.
        owns: Whether a partition is ours now, as far as the source knows.
        reports: Keep account of batches.
        telemetry: Spans and metrics.
        throttle: The limit of requests to Genesys.
        decided: Called when works got their outcome.
        progress: Told of each answer.
        times: Clocks, and dice for jitter.

    Attributes:
        lanes: Contacts on their way.
        gate: Decides when a request may start.
        admission: Where changes go.
        dispatcher: Sends them, while it runs.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        partitions: Partitions,
        store: Store,
        sink: Sink,
        owns: Callable[[TopicPartition], bool],
        reports: Reports,
        telemetry: Telemetry,
        throttle: Throttle,
        decided: Callable[[], None],
        progress: Progress,
        times: TimeAndChance,
    ) -> None:
        self.lanes = Lanes(
            settings.batch_max_records, settings.batch_max_bytes, settings.batch_linger_ms / 1000, sink.encode
        )
        self.gate = Gate(throttle, settings.genesys_max_in_flight, settings.batch_max_records)
        self.admission = Admission(
            partitions=partitions,
            lanes=self.lanes,
            store=store,
            reports=reports,
            contact_list_id=sink.contact_list_id,
            blocks=settings.genesys_dnc_list is not None,
            forgets=settings.forgets,
            clock=times.clock,
            decided=decided,
        )
        self.dispatcher = Dispatcher(
            partitions=partitions,
            lanes=self.lanes,
            admission=self.admission,
            gate=self.gate,
            sink=sink,
            owns=owns,
            telemetry=telemetry,
            reports=reports,
            times=times,
            progress=progress,
            decided=decided,
            releases=settings.genesys_dnc_release,
        )
