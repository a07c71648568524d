# Figures, and the tables laid out as in the paper: those that the study's design gives content to.


localrules:
    plot,
    layout,


rule plot:
    """A figure, as SVG, PDF and PNG."""
    input:
        tables=made("plot", "tables"),
        claims=made("plot", "claims"),
        flips=made("plot", "flips"),
        index=made("plot", "index"),
        behind=made("plot", "behind"),
    output:
        report(
            update("results/store/plot/{name}/{key}/{name}.svg"),
            category="Figures",
            labels={"figure": "{name}"},
            caption="../report/figures.rst",
        ),
        record=update("results/store/plot/{name}/{key}/record.json"),
    log:
        "logs/plot/{name}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("plot"),
        code=code("plot"),
        drawn=flagged("plot", "tables", "claims", "flips", "index"),
    shell:
        'python "$SELFREFINE/plot.py"'
        " --settings {params.settings:q}"
        " {params.drawn}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule layout:
    """A table laid out as in the paper, as CSV, Markdown and LaTeX."""
    input:
        tables=made("layout", "tables"),
        behind=made("layout", "behind"),
    output:
        report(
            update("results/store/layout/{name}/{key}/{name}.md"),
            category="Tables",
            labels={"table": "{name}"},
            caption="../report/layouts.rst",
        ),
        record=update("results/store/layout/{name}/{key}/record.json"),
    log:
        "logs/layout/{name}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("layout"),
        code=code("layout"),
        tables=flagged("layout", "tables"),
    shell:
        'python "$SELFREFINE/layout.py"'
        " --settings {params.settings:q}"
        " {params.tables}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
