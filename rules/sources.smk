# Raw benchmark files and model weights, fetched and checked; items in disjoint splits.


# Fetching needs the network, which compute nodes often lack; preparing reads small files and ends within seconds.
localrules:
    fetch,
    fetch_model,
    prepare,


rule fetch:
    """A benchmark's file as it was fetched."""
    output:
        record=update("results/store/fetch/{name}/{key}/record.json"),
    log:
        "logs/fetch/{name}/{key}.log",
    # Before what loads weights: a checkpoint is evaluated along with another benchmark only if that is at hand.
    priority: 1
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("fetch"),
        code=code("fetch"),
        source=inputs.source_of_file,
        sources=inputs.sources("fetch"),
    shell:
        'python "$SELFREFINE/fetch.py"'
        " --settings {params.settings:q}"
        " --source {params.source:q}"
        " --sources {params.sources:q}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule fetch_model:
    """A model's weights, as safetensors."""
    output:
        record=update("results/store/fetch_model/{model}/{key}/record.json"),
    log:
        "logs/fetch_model/{model}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("fetch_model"),
        code=code("fetch_model"),
        source=inputs.source_of_model,
        uses=inputs.uses_of_model,
        sources=inputs.sources("fetch_model"),
    shell:
        'python "$SELFREFINE/fetch_model.py"'
        " --settings {params.settings:q}"
        " --source {params.source:q}"
        " --uses {params.uses:q}"
        " --sources {params.sources:q}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule prepare:
    """A benchmark's split as checked items; a training split repeats no test item of any benchmark that is evaluated."""
    input:
        raw=made("prepare", "raw"),
        held_out=made("prepare", "held_out"),
    output:
        record=update("results/store/prepare/{name}/{key}/record.json"),
    log:
        "logs/prepare/{name}/{key}.log",
    priority: 1
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("prepare"),
        code=code("prepare"),
        held_out=flagged("prepare", "held_out"),
    shell:
        'python "$SELFREFINE/prepare.py"'
        " --settings {params.settings:q}"
        " --raw {input.raw}"
        " {params.held_out}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
