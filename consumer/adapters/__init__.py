"""The outside systems, one each. Adapters implement the ports and never import each other."""
