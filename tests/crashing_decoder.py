"""A life on a world in memory, whose decoder crashes the process at one record: run as a process of its own.

Arguments: the state directory, and the text that the record holds. Prints what became of the records, as JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fastavro

from consumer.adapters.breadcrumbs import FileBreadcrumbs
from tests.lives import live, world_of
from tests.stories import Event, Story

RECORDS = 500


def main(state_dir: Path, planted: bytes) -> None:
    """Live, or die on the way."""

    def crash(stream: Any, *schemas: Any) -> Any:
        if planted in stream.getvalue():
            os.kill(os.getpid(), signal.SIGSEGV)
        return fastavro.schemaless_reader(stream, *schemas)

    world = world_of(Story().tell(0, *[Event(f"contact-{number}", 1) for number in range(RECORDS)]))
    with patch("consumer.core.avro.schemaless_reader", crash):
        live(world, breadcrumbs=FileBreadcrumbs(state_dir))
    outcomes = [(event["outcome"], event["reasons"]) for event in world.events()]
    letters = [(record.offset, reason) for record, reason in world.dead_letters]
    print(json.dumps({"outcomes": outcomes, "letters": letters}))  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].encode())
