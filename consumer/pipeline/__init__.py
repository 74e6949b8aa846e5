"""The flow: which stage follows which, and the order of effects. Calls the core and the ports, knows no adapter.

- `run` owns the life of the pipeline: assignments come and go, drain, the end.
- `intake` takes polled records through decode and validate.
- `readers` learns what the records of a topic are read with; `quarantine` decodes.
- `admission` judges works and takes down how they end.
- `back_pressure` pauses partitions that hold their share of the memory.
- `outbound` puts together what lies between a change and its answer, for the stream and for the first fill.
- `dispatch` sends batches to Genesys.
- `reports` keep account of batches.
- `settle` makes outcomes visible: the order of effects is written there.
"""
