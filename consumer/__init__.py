"""Keeps a Genesys Cloud outbound contact list equal to what a CRM says, event by event, from Kafka."""
