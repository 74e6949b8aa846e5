"""The local index of what was delivered: a RocksDB for each source partition."""
