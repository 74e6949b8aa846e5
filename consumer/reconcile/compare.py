"""Goes through an export and finds what differs from what was delivered.

Answers for one comparison, from its beginning to its end: one whose export broke off counts for nothing. Touches the
scratch store and, through its port, the contact list.
"""

from collections import Counter
from collections.abc import Sequence

from consumer.command_ports import ContactExport
from consumer.core import reconcile
from consumer.core.reconcile import Standing
from consumer.model import ExportedContact
from consumer.reconcile.delivered import Delivered, Slot
from consumer.reconcile.findings import Finding, Findings, Found, of_contact, of_row

NO_DRIFT = frozenset({Standing.IN_STEP, Standing.HELD_BACK, Standing.UNKNOWN})


class Comparison:
    """One comparison of the list with what was delivered.

    Args:
        delivered: What was.
        findings: Where differences go.
        contact_list_id: Part of each fingerprint.
        attribute_columns: Names, in the order of the settings.
        key: Of the digests of values, up to 64 bytes.

    Attributes:
        rows: Contacts in the list.
        alike: Of those that do not differ, how they stand.
        unnamed: Contacts in the list without an external id.
    """

    def __init__(
        self,
        delivered: Delivered,
        findings: Findings,
        contact_list_id: str,
        attribute_columns: Sequence[str],
        key: bytes,
    ) -> None:
        self._delivered = delivered
        self._findings = findings
        self._contact_list_id = contact_list_id
        self._attribute_columns = attribute_columns
        self._key = key
        self.rows = 0
        self.alike: Counter[Standing] = Counter()
        self.unnamed = 0

    async def run(self, export: ContactExport) -> None:
        """Compare everything.

        Raises:
            TransientError: The export broke off.
        """
        self._delivered.forget_marks()
        await self._findings.open()
        async for rows in export():
            found = self._differing(rows)
            if found:
                await self._findings.put(found)
        async for entries in self._delivered.unmarked():
            missed = [
                (of_contact(identity), _missing(slot))
                for identity, slot in entries
                if reconcile.is_missed(slot.state, self._contact_list_id)
            ]
            if missed:
                await self._findings.put(missed)

    def _differing(self, rows: Sequence[ExportedContact]) -> list[Found]:
        owners = [reconcile.owner(row) for row in rows]
        known = list(filter(None, owners))
        slots = dict(zip(known, self._delivered.find(known), strict=True))
        self.rows += len(rows)
        found = []
        for row, owner in zip(rows, owners, strict=True):
            finding = self._compared(row, slots[owner] if owner else None)
            if finding is not None:
                found.append((of_contact(owner) if owner else of_row(row.contact_id), finding))
        return found

    def _compared(self, row: ExportedContact, slot: Slot | None) -> Finding | None:
        """What differs; None when nothing does."""
        if slot is None:
            self.unnamed += not row.values[0]
            return Finding(Standing.FOREIGN, row.contact_id, row.callable)
        self._delivered.mark(slot)
        state = slot.state
        how = reconcile.standing(row, state, self._contact_list_id, self._attribute_columns)
        if how in NO_DRIFT:
            self.alike[how] += 1
            return None
        seen = reconcile.digests(row.values, self._key)
        drifted = reconcile.has_drifted(row, state, self._contact_list_id, self._attribute_columns)
        return Finding(
            how, row.values[0], row.callable, state.deleted, state.fingerprint, seen, slot.source, state.offset, drifted
        )


def _missing(slot: Slot) -> Finding:
    state = slot.state
    return Finding(Standing.MISSING, "", fingerprint=state.fingerprint, source=slot.source, offset=state.offset)
