"""The outside systems, one each. Adapters implement the ports and never import each other.

`worker` is of none of them: a thread for calls that block.
"""
