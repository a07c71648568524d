# Figures, and the tables laid out as in the paper: those that the study's design gives content to.

import re

from selfrefine.outputs import figure_files, layout_files


localrules:
    plot,
    layout,


rule plot:
    input:
        training_logs,
        lambda wildcards: figure_files(wildcards.figure),
    output:
        svg=report(
            "results/figures/{figure}.svg",
            category="Figures",
            labels={"figure": "{figure}"},
            caption="../report/figures.rst",
        ),
        pdf="results/figures/{figure}.pdf",
        png="results/figures/{figure}.png",
        provenance="results/figures/{figure}.provenance.json",
    log:
        "logs/plot/{figure}.log",
    wildcard_constraints:
        figure="|".join(map(re.escape, study.figures())),
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("plot"),
        code=code("scripts/plot.py"),
    shell:
        "python scripts/plot.py"
        " --recipe {params.recipe:q}"
        " --tables results/tables"
        " --index results/index/training.json"
        " --svg {output.svg}"
        " --provenance {output.provenance}"
        " &> {log}"


rule layout:
    input:
        lambda wildcards: layout_files(study, wildcards.layout),
    output:
        csv="results/tables/paper/{layout}.csv",
        md=report(
            "results/tables/paper/{layout}.md",
            category="Tables",
            labels={"table": "{layout}"},
            caption="../report/layouts.rst",
        ),
        tex="results/tables/paper/{layout}.tex",
        provenance="results/tables/paper/{layout}.provenance.json",
    log:
        "logs/layout/{layout}.log",
    wildcard_constraints:
        layout="|".join(map(re.escape, study.layouts())),
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("layout"),
        code=code("scripts/layout.py"),
    shell:
        "python scripts/layout.py"
        " --recipe {params.recipe:q}"
        " --tables results/tables"
        " --csv {output.csv}"
        " --provenance {output.provenance}"
        " &> {log}"
