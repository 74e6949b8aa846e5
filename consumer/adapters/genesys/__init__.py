"""Genesys Cloud over HTTPS: transport, answers, token, client, and the contact list as the pipeline's sink."""
