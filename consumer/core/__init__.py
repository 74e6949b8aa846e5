"""The decisions: no I/O, no clock, no randomness, no asyncio, no client library. Stages do not import each other."""
