# Tables, a summary, and a page to read paths and pairs on; figures and laid-out tables are in figures.smk.


localrules:
    index,
    configuration,
    sources_table,
    tables,
    summarise,
    read,


INDEX = study.index()
TABLES = [
    "accuracy",
    "arms",
    "comparisons",
    "lengths",
    "demonstrations",
    "paths",
    "solving",
    "pairs",
    "stages",
    "costs",
]


rule index:
    output:
        "results/index/{part}.json",
    log:
        "logs/index/{part}.log",
    params:
        text=text(study.listing),
    run:
        write_text(output[0], params.text)


rule configuration:
    output:
        report("results/configuration.yaml", category="Configuration", caption="../report/configuration.rst"),
    log:
        "logs/configuration.log",
    params:
        text=text(study.yaml),
    run:
        write_text(output[0], params.text)


rule sources_table:
    output:
        report(
            "results/tables/sources.csv",
            category="Tables",
            labels={"table": "sources"},
            caption="../report/tables.rst",
        ),
    log:
        "logs/sources_table.log",
    params:
        text=text(study.sources_csv),
    run:
        write_text(output[0], params.text)


rule tables:
    input:
        [cell["samples"] for cell in INDEX["cells"]],
        INDEX["paths"],
        INDEX["records"],
        index="results/index/tables.json",
    output:
        report(
            expand("results/tables/{table}.csv", table=TABLES),
            category="Tables",
            labels=lambda wildcards, output: {"table": "all"},
            caption="../report/tables.rst",
        ),
        provenance="results/tables/provenance.json",
    log:
        "logs/tables.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("tables"),
        code=code("scripts/tables.py"),
    shell:
        "python scripts/tables.py"
        " --recipe {params.recipe:q}"
        " --index {input.index}"
        " --folder results/tables"
        " --provenance {output.provenance}"
        " &> {log}"


rule summarise:
    input:
        expand("results/tables/{table}.csv", table=TABLES),
    output:
        summary=report("results/summary.md", category="Summary", caption="../report/summary.rst"),
        provenance="results/summary.provenance.json",
    log:
        "logs/summarise.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("summarise"),
        code=code("scripts/summarise.py"),
    shell:
        "python scripts/summarise.py"
        " --recipe {params.recipe:q}"
        " --tables results/tables"
        " --output {output.summary}"
        " --provenance {output.provenance}"
        " &> {log}"


rule read:
    input:
        [INDEX[kind] for kind in ("items", "paths", "pairs")],
        index="results/index/reading.json",
    output:
        page=report("results/reading.html", category="Paths and pairs", caption="../report/reading.rst"),
        provenance="results/reading.provenance.json",
    log:
        "logs/read.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        code=code("scripts/read.py"),
    shell:
        "python scripts/read.py"
        " --index {input.index}"
        " --output {output.page}"
        " --provenance {output.provenance}"
        " &> {log}"
