"""From the configuration to artifacts: checks, design, stage settings, keys, plans."""
