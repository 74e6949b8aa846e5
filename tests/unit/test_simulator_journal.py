"""The journal, and the check for a contact in two requests at once."""

from consumer.simulator.journal import Journal
from consumer.simulator.operations import Operation

ADD = Operation.ADD_CONTACTS


def journal_of(*requests: tuple[Operation, str, float, float | None]) -> Journal:
    """A journal of requests: operation, contact, start and end."""
    journal = Journal(limit=100)
    for operation, contact_id, started, ended in requests:
        entry = journal.begin(operation, started)
        entry.contact_ids, entry.list_id, entry.ended = (contact_id,), "list", ended
    return journal


def test_entries_are_numbered_in_order():
    """Numbers grow from 1, also past the limit, of which only the last are kept."""
    journal = Journal(limit=2)
    for now in (0.0, 1.0, 2.0):
        journal.begin(ADD, now)
    assert [(entry.number, entry.started) for entry in journal] == [(2, 1.0), (3, 2.0)]
    assert len(journal) == 2


def test_without_a_limit_nothing_is_kept():
    """A journal of limit 0 hands out entries and forgets them."""
    journal = Journal()
    assert journal.begin(ADD, 0.0).number == 1
    assert (len(journal), journal.kept) == (0, False)


def test_requests_one_after_another_do_not_overlap():
    """A request that starts when the one before has ended is no overlap, nor is another contact's."""
    journal = journal_of((ADD, "a", 0, 1), (ADD, "b", 0, 3), (ADD, "a", 1, 2))
    assert journal.overlapping_contacts() == set()


def test_an_add_during_a_delete_overlaps():
    """A contact in two writing requests at once is found, whichever they are."""
    journal = journal_of((Operation.DELETE_CONTACTS, "a", 0, 2), (ADD, "a", 1, 3), (ADD, "b", 4, 5))
    assert journal.overlapping_contacts() == {"a"}


def test_an_open_request_overlaps_all_that_follow():
    """A request without an end lasts."""
    assert journal_of((ADD, "a", 0, None), (ADD, "a", 9, 10)).overlapping_contacts() == {"a"}


def test_every_overlapping_contact_is_found():
    """Other contacts' requests in between hide no overlap."""
    journal = journal_of((ADD, "a", 0, 10), (ADD, "b", 1, 2), (ADD, "b", 1.5, 1.7), (ADD, "a", 5, 6))
    assert journal.overlapping_contacts() == {"a", "b"}


def test_reads_do_not_count():
    """A read beside a write is no overlap, and does not keep the contact busy."""
    journal = journal_of((ADD, "a", 0, 2), (Operation.GET_CONTACT, "a", 1, 9), (ADD, "a", 3, 4))
    assert journal.overlapping_contacts() == set()


def test_the_same_id_in_two_lists_is_two_contacts():
    """Writes of one id in two lists do not overlap."""
    journal = journal_of((ADD, "a", 0, 2), (ADD, "a", 1, 3))
    next(iter(journal)).list_id = "another"
    assert journal.overlapping_contacts() == set()
