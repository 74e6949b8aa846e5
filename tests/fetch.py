"""`make fetch`: what Maven fetches for tests with real parts, before they run: their time limits would count it.

Without Java or Maven those tests are skipped, and where CI=true this fails.
"""

import os
import sys

from tests import apicurio, kafka_cluster


def main() -> int:
    """Fetch what is not there yet."""
    lacking = False
    for name, fetched in (("Apache Kafka", kafka_cluster.kafka_jars), ("Apicurio Registry", apicurio.jar)):
        try:
            sys.stdout.write(f"{name}: {fetched()}\n")
        except (kafka_cluster.KafkaMissingError, kafka_cluster.KafkaFailedError) as missing:
            sys.stdout.write(f"!!! {name}: {missing}: tests that need it are SKIPPED, or fail\n")
            lacking = True
    return 1 if lacking and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
