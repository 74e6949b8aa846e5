"""The local index of what was delivered: a RocksDB for each source partition; and the files of a state directory."""
