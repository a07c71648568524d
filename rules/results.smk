# Tables, a summary, the page that shows everything, and all results under their names; figures are in figures.smk.


localrules:
    listing,
    configuration,
    sources,
    tables,
    summarise,
    page,
    show,


rule listing:
    """A file that the configuration alone decides, such as where all that the tables read lies."""
    output:
        record=update("results/store/listing/{name}/{key}/record.json"),
    log:
        "logs/listing/{name}/{key}.log",
    wildcard_constraints:
        name="(?!(?:configuration|sources)/)[a-z]+",
    params:
        text=inputs.listing_text,
    run:
        write_listing(output.record, params.text)


use rule listing as configuration with:
    """The configuration that the results were made with, defaults included."""
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
    """What the study uses, from where, under which licence."""
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
        settings=settings("tables"),
        code=code("tables"),
    shell:
        'python "$SELFREFINE/tables.py"'
        " --settings {params.settings:q}"
        " --index {input.index}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule summarise:
    """The summary of one screen, and its long form."""
    input:
        tables=made("summarise", "tables"),
        claims=made("summarise", "claims"),
        flips=made("summarise", "flips"),
    output:
        report(
            update("results/store/summarise/{key}/summary.md"),
            category="Summary",
            caption="../report/summary.rst",
        ),
        report(
            update("results/store/summarise/{key}/details.md"),
            category="Summary",
            caption="../report/details.rst",
        ),
        record=update("results/store/summarise/{key}/record.json"),
    log:
        "logs/summarise/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("summarise"),
        code=code("summarise"),
    shell:
        'python "$SELFREFINE/summarise.py"'
        " --settings {params.settings:q}"
        " --tables {input.tables}"
        " --claims {input.claims}"
        " --flips {input.flips}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule page:
    """The page that a person reads and sends: verdicts, figures, tables, and every response."""
    input:
        index=made("page", "index"),
        configuration=made("page", "configuration"),
        sources=made("page", "used_sources"),
        tables=made("page", "tables"),
        claims=made("page", "claims"),
        flips=made("page", "flips"),
        figures=made("page", "figures"),
        layouts=made("page", "layouts"),
        behind=made("page", "samples", "behind"),
    output:
        report(
            update("results/store/page/{key}/index.html"),
            category="Page",
            caption="../report/page.rst",
        ),
        record=update("results/store/page/{key}/record.json"),
    log:
        "logs/page/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("page"),
        code=code("page"),
    shell:
        'python "$SELFREFINE/page.py"'
        " --settings {params.settings:q}"
        " --index {input.index}"
        " --configuration {input.configuration}"
        " --used-sources {input.sources}"
        " --tables {input.tables}"
        " --claims {input.claims}"
        " --flips {input.flips}"
        " --figures {input.figures}"
        " --layouts {input.layouts}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule show:
    """All results of the study under their names, as links into the store."""
    input:
        inputs.finals,
    output:
        shown="results/{study}/.shown/{key}.{time}",
    log:
        "logs/show/{study}/{key}.{time}.log",
    conda:
        "../envs/pipeline.yaml"
    shell:
        'python "$SELFREFINE/show.py" --records {input} --shown {output.shown} &> {log}'
