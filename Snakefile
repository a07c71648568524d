# Self-Refine Instruction-Tuning, from raw benchmarks to tables and figures: a table of contents.
#
#   snakemake --cores 2                                  the quickstart study (config/config.yaml)
#   snakemake --cores 2 --configfile config/mine.yaml    another one

from snakemake.utils import min_version

min_version("9.0")


configfile: f"{workflow.basedir}/config/benchmarks.yaml"
configfile: f"{workflow.basedir}/config/recipes.yaml"


if not {"models", "students", "teachers"}.intersection(config):

    configfile: f"{workflow.basedir}/config/config.yaml"


report: "report/workflow.rst"


# For `snakemake --sdm apptainer`; built from envs/selfrefine.def.
container: "envs/selfrefine.sif"


include: "rules/common.smk"
include: "rules/sources.smk"
include: "rules/choose.smk"
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
    """The study: its tables, figures, claims and pages, and these under their names."""
    input:
        inputs.results,


onstart:
    session.begin()


onsuccess:
    session.end()


onerror:
    session.failed()
