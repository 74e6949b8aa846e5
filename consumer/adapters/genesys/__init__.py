"""Genesys Cloud over HTTPS.

- `sink` is the contact list as the pipeline has it: `contacts` adds, reads and deletes them, `blocking` puts their
  numbers on the do-not-call list, `holding` has nobody call them meanwhile. `contact_list` and `dnc_list` are the lists
  behind it, found by `named_lists`.
- `uploads` and `exports` (`export_file`) are its files, at `addresses` that Genesys names.
- `client` asks: `oauth` has its token, `transport` sends, `answers` says what comes back, `limits` how often it may.
- `inspection` is for `check`.
"""
