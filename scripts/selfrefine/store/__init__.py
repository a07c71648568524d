"""The store's files: records, runs, hashes, locks, journals, code fingerprints, and reuse."""
