# Tables, a summary, a page to read paths and pairs on, and all results under their names; figures are in figures.smk.


localrules:
    listing,
    configuration,
    sources,
    tables,
    summarise,
    read,
    show,


rule listing:
    """A text that the configuration alone decides, such as what the tables are made of."""
    output:
        record=update("results/store/listing/{name}/{key}/record.json"),
    log:
        "logs/listing/{name}/{key}.log",
    wildcard_constraints:
        name="(?!(?:configuration|sources)/)[a-z]+",
    params:
        text=lambda wildcards: finals.text(artifact_of("listing", wildcards).of["part"]),
    run:
        write_listing(output.record, params.text)


use rule listing as configuration with:
    output:
        report(
            update("results/store/listing/{name}/{key}/configuration.yaml"),
            category="Configuration",
            caption="../report/configuration.rst",
        ),
        record=update("results/store/listing/{name}/{key}/record.json"),
    wildcard_constraints:
        name="configuration",


use rule listing as sources with:
    output:
        report(
            update("results/store/listing/{name}/{key}/sources.csv"),
            category="Tables",
            labels={"table": "sources"},
            caption="../report/tables.rst",
        ),
        record=update("results/store/listing/{name}/{key}/record.json"),
    wildcard_constraints:
        name="sources",


rule tables:
    """The study's tables, from judged answers and records."""
    input:
        index=made("tables", "index"),
        behind=made("tables", "samples", "behind"),
    output:
        report(
            update(expand("results/store/tables/{{key}}/{table}.csv", table=TABLES)),
            category="Tables",
            labels=lambda wildcards, output: {"table": "all"},
            caption="../report/tables.rst",
        ),
        record=update("results/store/tables/{key}/record.json"),
    log:
        "logs/tables/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("tables"),
        code=code("tables"),
    shell:
        'python "$SELFREFINE/tables.py"'
        " --recipe {params.recipe:q}"
        " --index {input.index}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule summarise:
    """The summary."""
    input:
        tables=made("summarise", "tables"),
    output:
        report(
            update("results/store/summarise/{key}/summary.md"),
            category="Summary",
            caption="../report/summary.rst",
        ),
        record=update("results/store/summarise/{key}/record.json"),
    log:
        "logs/summarise/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("summarise"),
        code=code("summarise"),
    shell:
        'python "$SELFREFINE/summarise.py"'
        " --recipe {params.recipe:q}"
        " --tables {input.tables}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule read:
    """A page on which a person reads sampled paths and pairs."""
    input:
        index=made("read", "index"),
        behind=made("read", "behind"),
    output:
        report(
            update("results/store/read/{key}/reading.html"),
            category="Paths and pairs",
            caption="../report/reading.rst",
        ),
        record=update("results/store/read/{key}/record.json"),
    log:
        "logs/read/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        code=code("read"),
    shell:
        'python "$SELFREFINE/read.py"'
        " --index {input.index}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule show:
    """All results of the study under their names, as links into the store."""
    input:
        lambda wildcards: at_any_age([str(one.record) for one in finals.all()], finals.shown()),
    output:
        shown="results/{study}/.shown/{key}.{time}",
    log:
        "logs/show/{study}/{key}.{time}.log",
    conda:
        "../envs/pipeline.yaml"
    shell:
        'python "$SELFREFINE/show.py" --records {input} --shown {output.shown} &> {log}'
