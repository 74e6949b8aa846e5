"""`dead-letters list`: what was given up.

Answers for what is told of letters: reasons, positions, times and counts, never what a letter holds. Reads the dead
letter topic, and which of its letters were replayed.
"""

from contextlib import closing

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.replays import doubt, recall
from consumer.core.dead_letters import Letter
from consumer.core.replayed import Replayed
from consumer.errors import Unauthorized
from consumer.operate import printing
from consumer.operate.dead_letters import Found, Query, Tally, read
from consumer.settings import Settings


def list_letters(settings: Settings, query: Query, *, records: bool, output: str) -> None:
    """Print which letters there are: a table, and before it a line for each where `records` asks for them.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: There is no dead letter topic, or it may not be read.
        SettingsError: There is no letter of the topic that is asked for, nor is it a source topic: it is misspelt.
    """
    connection = Connection.of(settings)
    replayed, untold = _recalled(connection, settings)
    tally, unreadable = Tally(), 0
    with closing(read(connection, settings, query)) as letters:
        for found in letters:
            if found.letter is None:
                unreadable += 1
                continue
            was_replayed = None if replayed is None else found.place in replayed
            tally.add(found.letter, replayed=was_replayed)
            if records:
                _print_record(found, found.letter, output, replayed=was_replayed)
            if tally.letters == query.limit:
                break
    if not tally.letters:  # those of a topic that is a source no more are listed all the same
        query.refuse_other_topics(settings)
    _print_list(tally, unreadable, untold, output)


def _recalled(connection: Connection, settings: Settings) -> tuple[Replayed | None, str]:
    """Which letters were replayed; None, and why, where nobody can tell, as where that may not be read."""
    try:
        replayed = recall(connection, settings)
        why = doubt(connection, settings)
    except Unauthorized as error:
        return None, str(error)
    return (None if why else replayed), why


def _print_record(found: Found, letter: Letter, output: str, *, replayed: bool | None) -> None:
    told = {
        "time": printing.moment(letter.time_ms),
        "source": str(letter.source),
        "reason": letter.reason,
        "attempt": letter.attempt,
        "replayed": replayed,
        "letter": "/".join(map(str, found.place)),
        "detail": letter.detail,
    }
    if output == "json":
        printing.document(told)
    else:
        state = {True: "replayed", False: "open", None: "open or replayed"}[replayed]
        printing.line(
            f"{told['time']}  {letter.source}  {letter.reason}  attempt {letter.attempt}  {state}  {letter.detail}"
        )


def _print_list(tally: Tally, unreadable: int, untold: str, output: str) -> None:
    if output == "json":
        why = {"replayedUnknown": untold} if untold else {}
        printing.document({"letters": tally.letters, "unreadable": unreadable, **why, "groups": tally.document()})
        return
    if tally.letters:
        tally.print_table()
    else:
        printing.line("no dead letters")
    if untold and tally.letters:
        printing.line(f"which of them were replayed cannot be told: {untold}")
    if unreadable:
        printing.line(f"records of the topic that are no dead letters of this program: {unreadable}")
