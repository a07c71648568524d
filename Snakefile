# Self-Refine Instruction-Tuning, from raw benchmarks to tables and figures: a table of contents.
#
#   snakemake --cores 2                                  the quickstart study (config/config.yaml)
#   snakemake --cores 2 --configfile config/mine.yaml    another one

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/benchmarks.yaml"
configfile: "config/recipes.yaml"


if "study" not in config:

    configfile: "config/config.yaml"


report: "report/workflow.rst"


# For `snakemake --sdm apptainer`; built from envs/selfrefine.def.
container: "envs/selfrefine.sif"


include: "rules/common.smk"
include: "rules/sources.smk"
include: "rules/teacher.smk"
include: "rules/instruct.smk"
include: "rules/refine.smk"
include: "rules/evaluate.smk"
include: "rules/results.smk"
include: "rules/figures.smk"
include: "rules/claims.smk"


localrules:
    all,


rule all:
    input:
        "results/summary.md",
        "results/claims.md",
        "results/claims.json",
        "results/configuration.yaml",
        "results/reading.html",
        expand("results/tables/{table}.csv", table=[*TABLES, "sources"]),
        expand("results/figures/{figure}.{format}", figure=study.figures(), format=["svg", "pdf", "png"]),
        expand("results/tables/paper/{layout}.{format}", layout=study.layouts(), format=["csv", "md", "tex"]),


onstart:
    queueing.refuse_without_cluster(workflow, study)
    accompany(workflow, sys.stderr)


onsuccess:
    show_summary("results/summary.md")
