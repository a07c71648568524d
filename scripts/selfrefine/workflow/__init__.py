"""What the rules are made with: the one package that knows Snakemake."""
