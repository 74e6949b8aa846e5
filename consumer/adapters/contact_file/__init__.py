"""A file of contacts on disk: which format it has, that it stays as it was, and its rows, a few at a time."""
