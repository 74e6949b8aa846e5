"""Telemetry: spans over OTLP, metrics for Prometheus."""
