"""The first five minutes: sample change events, and the whole program on an embedded broker and a simulated Genesys."""
