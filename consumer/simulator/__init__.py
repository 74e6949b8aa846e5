"""Genesys Cloud's outbound contact lists on loopback: documented behaviour, faults on demand, and a view inside."""
