# Tables, figures, a summary, and a page to read paths and pairs on.


localrules:
    index,
    configuration,
    tables,
    plot,
    summarise,
    read,


INDEX = study.index()
TABLES = [
    "accuracy",
    "arms",
    "comparisons",
    "demonstrations",
    "paths",
    "pairs",
    "stages",
    "sources",
]


rule index:
    output:
        "results/tables/index.json",
    log:
        "logs/index.log",
    params:
        index=lambda wildcards: canonical_json(INDEX),
    run:
        Path(output[0]).write_text(params.index)


rule configuration:
    output:
        report("results/configuration.yaml", category="Configuration", caption="../report/configuration.rst"),
    log:
        "logs/configuration.log",
    params:
        text=lambda wildcards: yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False),
    run:
        Path(output[0]).write_text(params.text)


rule tables:
    input:
        [cell["samples"] for cell in INDEX["cells"]],
        [INDEX[stage] for stage in ("answers", "demonstrations", "paths", "pairs", "training")],
        index="results/tables/index.json",
    output:
        report(
            expand("results/tables/{table}.csv", table=TABLES),
            category="Tables",
            labels=lambda wildcards, output: {"table": "all"},
            caption="../report/tables.rst",
        ),
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
        " &> {log}"


rule plot:
    input:
        INDEX["training"],
        index="results/tables/index.json",
        arms="results/tables/arms.csv",
    output:
        svg=report(
            "results/figures/{figure}.svg",
            category="Figures",
            labels={"figure": "{figure}"},
            caption="../report/figures.rst",
        ),
        png="results/figures/{figure}.png",
    log:
        "logs/plot/{figure}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        code=code("scripts/plot.py"),
    shell:
        "python scripts/plot.py"
        " --figure {wildcards.figure}"
        " --index {input.index}"
        " --arms {input.arms}"
        " --svg {output.svg}"
        " --png {output.png}"
        " &> {log}"


rule summarise:
    input:
        expand("results/tables/{table}.csv", table=TABLES),
        index="results/tables/index.json",
    output:
        report("results/summary.md", category="Summary", caption="../report/summary.rst"),
    log:
        "logs/summarise.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        code=code("scripts/summarise.py"),
    shell:
        "python scripts/summarise.py"
        " --index {input.index}"
        " --tables results/tables"
        " --output {output}"
        " &> {log}"


rule read:
    input:
        [INDEX[stage] for stage in ("items", "paths", "pairs")],
        index="results/tables/index.json",
    output:
        report("results/reading.html", category="Paths and pairs", caption="../report/reading.rst"),
    log:
        "logs/read.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        code=code("scripts/read.py"),
    shell:
        "python scripts/read.py" " --index {input.index}" " --output {output}" " &> {log}"
