"""Weights: checkpoints on disk, what they are multiplied in, the processes of a training job."""
