"""Kafka: the group consumer, the transactional producer with the changelog reader, and the topics."""
