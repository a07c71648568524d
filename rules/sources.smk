# Raw benchmark files and model weights, fetched and checked; items in disjoint splits; students as they come.


# Fetching needs the network, which compute nodes often lack; the others read small files and end within seconds.
localrules:
    fetch,
    fetch_model,
    prepare,
    base,


rule fetch:
    input:
        source_files,
    output:
        raw="results/benchmarks/{task}/raw/{file}",
        provenance="results/benchmarks/{task}/raw/{file}.provenance.json",
    log:
        "logs/fetch/{task}/{file}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("fetch"),
        code=code("scripts/fetch.py"),
    shell:
        "python scripts/fetch.py"
        " --recipe {params.recipe:q}"
        " --output {output.raw}"
        " --provenance {output.provenance}"
        " &> {log}"


rule fetch_model:
    input:
        source_files,
    output:
        manifest="results/models/{model}/manifest.json",
        provenance="results/models/{model}/provenance.json",
    log:
        "logs/fetch_model/{model}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("fetch_model"),
        code=code("scripts/fetch_model.py"),
    shell:
        "python scripts/fetch_model.py"
        " --recipe {params.recipe:q}"
        " --manifest {output.manifest}"
        " --provenance {output.provenance}"
        " &> {log}"


rule prepare:
    input:
        held_out_file,
        raw=raw_file,
    output:
        questions="results/benchmarks/{task}/{split}.jsonl",
        provenance="results/benchmarks/{task}/{split}.provenance.json",
    log:
        "logs/prepare/{task}/{split}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("prepare"),
        code=code("scripts/prepare.py"),
        held_out=flags(held_out),
    shell:
        "python scripts/prepare.py"
        " --recipe {params.recipe:q}"
        " --raw {input.raw}"
        " {params.held_out}"
        " --output {output.questions}"
        " --provenance {output.provenance}"
        " &> {log}"


rule base:
    input:
        model=lambda wildcards: f"results/models/{study.students[wildcards.student].model}/manifest.json",
    output:
        manifest="results/checkpoints/{student}/base/manifest.json",
        provenance="results/checkpoints/{student}/base/provenance.json",
    log:
        "logs/base/{student}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        code=code("scripts/base.py"),
    shell:
        "python scripts/base.py"
        " --model {input.model}"
        " --manifest {output.manifest}"
        " --provenance {output.provenance}"
        " &> {log}"
