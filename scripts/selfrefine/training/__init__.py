"""Training: encoded examples, preference pairs, packed updates, resumption, saving."""
