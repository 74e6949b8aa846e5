"""`make fetch`: what Maven fetches for tests with real parts, before they run: their time limits would count it.

Without Java or Maven those tests are skipped, and where CI=true this fails.
"""

import os
import sys

from tests import apicurio, kafka_cluster


def main() -> int:
    """Fetch what is not there yet."""
    for name, fetched in (("Apache Kafka", kafka_cluster.kafka_jars), ("Apicurio Registry", apicurio.jar)):
        try:
            sys.stdout.write(f"{name}: {fetched()}\n")
        except kafka_cluster.KafkaMissingError as missing:
            sys.stdout.write(f"!!! {missing}: tests that need it are SKIPPED\n")
            return 1 if os.environ.get("CI") == "true" else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
