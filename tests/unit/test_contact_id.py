import uuid

from hypothesis import given, strategies as st

from consumer.core.contact_id import CONTACT_NAMESPACE, contact_id


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_contact_id_is_the_uuid5_of_the_external_id(external_id):
    """The quick way gives what the standard library gives, for any external id."""
    assert contact_id(external_id) == str(uuid.uuid5(CONTACT_NAMESPACE, external_id))


def test_contact_id_never_changes():
    """An id that was given once is given for ever: another one would add every contact a second time."""
    assert contact_id("0035g00000XyZ1AAAV") == "5014d864-5a0c-54bd-9310-95a42a28e7da"
