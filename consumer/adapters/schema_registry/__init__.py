"""Writer schemas: from a directory, and from a registry that speaks Confluent's REST API or Apicurio's.

- `directory` is what the operator put there.
- `registry` asks the registry, keeps what it said, and falls back on the directory for what the registry does not know.
- `confluent`, `apicurio` are what the two APIs look like; `references` fetches what a schema refers to, `inlining` puts
  it in place; `transport` is HTTP, with TLS; `login` and `tokens` are who asks, `answers` is what comes back,
  `failures` what may be told of it.
- `cache` keeps schemas over restarts.
"""
