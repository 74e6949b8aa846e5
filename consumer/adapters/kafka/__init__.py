"""Kafka: the group consumer, the transactional producer with the changelog reader, and the topics.

- `source` is the group consumer, whose thread is `poller`: `handoff` lies between it and the event loop, `ownership`
  has the partitions that are ours, `starts` finds where they begin, `cut_logs` where a log was cut off, `lease` and
  `reach` know whether group and brokers answer, `orphans` finds what nobody owns, `static_name` waits for a name that
  the group has not released.
- `event_topics` writes settlements, through `settling_producer`; `changelog` reads the changelog of one source
  partition; `topics` creates missing output topics.
- `connection` makes all clients; `failures` says what their errors mean.
- `messages`, `group_offsets` and `watermarks` are for several of them.
- `bounded`, `replays`, `history`, `inspection`, `sampling` and `one_record` are for the commands beside the consumer.
"""
