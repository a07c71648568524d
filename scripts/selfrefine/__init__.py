"""Library of the Self-Refine Instruction-Tuning pipeline; knows nothing of Snakemake."""
