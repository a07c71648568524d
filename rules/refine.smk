# Phase 2: a checkpoint answers the training items itself; pairs of its answers refine it against itself, frozen.


# Pairing reads one file and takes seconds; queueing for a node takes half a minute.
localrules:
    pair,


rule sample:
    input:
        checkpoint="results/checkpoints/{start}/manifest.json",
        questions="results/benchmarks/{task}/train.jsonl",
    output:
        paths="results/paths/{start}/{task}/{share}/{seed}.jsonl",
        provenance="results/paths/{start}/{task}/{share}/{seed}.provenance.json",
    log:
        "logs/sample/{start}/{task}/{share}/{seed}.log",
    conda:
        STUDENT_ENVIRONMENT
    threads: study.threads.generate
    resources:
        gpu=needs("gpu", "sample"),
        mem_mb=needs("mem_mb", "sample"),
        runtime=needs("runtime", "sample"),
        login=0,
    params:
        recipe=recipe("sample"),
        code=code("scripts/sample.py"),
        vllm=vllm_flags(study.engine),
        compute=compute_flag(),
    shell:
        "HF_HUB_OFFLINE=1 python scripts/sample.py"
        " --recipe {params.recipe:q}"
        " --checkpoint {input.checkpoint}"
        " --items {input.questions}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --output {output.paths}"
        " --provenance {output.provenance}"
        " &> {log}"


rule pair:
    input:
        unpack(demonstrations_for_pairs),
        paths="results/paths/{start}/{task}/{share}/{seed}.jsonl",
    output:
        pairs="results/pairs/{start}/{task}/{recipe}/{share}/{seed}.jsonl",
        provenance="results/pairs/{start}/{task}/{recipe}/{share}/{seed}.provenance.json",
    log:
        "logs/pair/{start}/{task}/{recipe}/{share}/{seed}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("pair"),
        code=code("scripts/pair.py"),
        demonstrations=flags(demonstrations_for_pairs),
    shell:
        "python scripts/pair.py"
        " --recipe {params.recipe:q}"
        " --paths {input.paths}"
        " {params.demonstrations}"
        " --output {output.pairs}"
        " --provenance {output.provenance}"
        " &> {log}"


rule refine:
    input:
        start=refinement_start,
        questions="results/benchmarks/{task}/train.jsonl",
        pairs="results/pairs/{start}/{task}/{recipe}/{share}/{seed}.jsonl",
    output:
        multiext(
            "results/checkpoints/{start}/refine/{task}/{recipe}/{share}/{seed}/",
            manifest="manifest.json",
            training="training.jsonl",
            provenance="provenance.json",
        ),
    log:
        "logs/refine/{start}/{task}/{recipe}/{share}/{seed}.log",
    conda:
        "../envs/pipeline.yaml"
    threads: study.threads.train
    resources:
        gpu=needs("gpu", "refine"),
        mem_mb=needs("mem_mb", "refine"),
        runtime=needs("runtime", "refine"),
        login=0,
    params:
        recipe=recipe("refine"),
        code=code("scripts/refine.py"),
        allocator=KEEP_MEMORY,
        launcher=launcher,
        compute=compute_flag(),
    shell:
        "HF_HUB_OFFLINE=1 {params.allocator} {params.launcher} scripts/refine.py"
        " --recipe {params.recipe:q}"
        " --start {input.start}"
        " --items {input.questions}"
        " --pairs {input.pairs}"
        " --threads {threads}"
        " {params.compute}"
        " --manifest {output.manifest}"
        " --log {output.training}"
        " --provenance {output.provenance}"
        " &> {log}"
