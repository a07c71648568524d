"""What the programs of the rules share: arguments, errors in one line, loaded checkpoints."""
