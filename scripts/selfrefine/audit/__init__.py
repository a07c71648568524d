"""What lies in a store and why: traces, checks, recounts, archives, upkeep."""
