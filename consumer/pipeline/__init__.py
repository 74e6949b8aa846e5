"""The flow: which stage follows which, and the order of effects. Calls the core and the ports, knows no adapter.

- `run` owns the life of the pipeline: what comes from the source, drain, the end. `assignments` come and go; `finish`
  ends what is under way of them.
- `partitions` is what it holds of each assigned partition; `restore` brings its store up to date, `imports` waits
  for what a load may have left on its way, `retention` forgets.
- `mapping_check` holds mappings against the registered schemas, before the first record.
- `feed` hands over what was polled, each partition as far as it may be judged now; `back_pressure` pauses partitions
  that hold their share of the memory, `fuses` stop topics.
- `intake` takes records through decode and validate; `told` makes what they tell ready to be judged.
- `readers` learns what the records of a topic are read with; `quarantine` decodes.
- `admission` judges works and takes down how they end; `progress` tells whoever waits that something got done.
- `outbound` puts together what lies between a change and its answer, for the stream and for the first fill.
- `dispatch` sends batches to Genesys: `requests` says what each asks of it, `search` and `blame` find the contact for
  which a request comes to nothing, `again` decides how a contact goes on for which one was not enough. `apart` knows
  those that are tried by themselves, `busy` those that are in use, `late` requests that nobody answered, `put_off`
  those with which Genesys asks to wait again and again, `waits` withdrawals for which the do-not-call list takes no
  numbers, and new contacts for which there is no room; `often` tells some of the log lines that each has.
- `reports` keep account of batches.
- `settle` makes outcomes visible: the order of effects is written there. `rejections` says when a
  topic's records are mostly rejected.
"""
