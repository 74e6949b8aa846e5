"""`python -m consumer` is the same program as `genesys-consumer`."""

from consumer.cli import main

raise SystemExit(main())
