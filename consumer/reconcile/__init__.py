"""Compares the contact list in Genesys with what was delivered, and mends it on request."""
