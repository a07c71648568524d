# Phase 2: a checkpoint answers the training items itself; pairs of its answers refine it against itself, frozen. Online,
# it answers as it learns.


# Pairing reads one file and takes seconds; queueing for a node takes half a minute.
localrules:
    pair,


rule sample:
    """What a checkpoint samples for the training items."""
    input:
        checkpoint=made("sample", "checkpoint"),
        questions=made("sample", "items"),
        shots=made("sample", "shots"),
    output:
        record=update("results/store/sample/{names}/{key}/record.json"),
    log:
        "logs/sample/{names}/{key}.log",
    # Before evaluations of the same checkpoint, which it may take along.
    priority: 1
    conda:
        STUDENT_ENVIRONMENT
    threads: study.threads.generate
    resources:
        gpu=needs("gpu", "sample"),
        mem_mb=needs("mem_mb", "sample"),
        runtime=needs("runtime", "sample"),
        login=0,
    params:
        settings=settings("sample"),
        code=code("sample"),
        shots=flagged("sample", "shots"),
        also=evaluations.also("sample"),
        vllm=flags.vllm(study.engine),
        compute=flags.compute(),
    shell:
        'HF_HUB_OFFLINE=1 python "$SELFREFINE/sample.py"'
        " --settings {params.settings:q}"
        " --checkpoint {input.checkpoint}"
        " --items {input.questions}"
        " {params.shots}"
        " --also {params.also:q}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule pair:
    """Preference pairs of a checkpoint's sampled paths, chosen by a preference recipe."""
    input:
        paths=made("pair", "paths"),
        demonstrations=made("pair", "demonstrations"),
    output:
        record=update("results/store/pair/{names}/{key}/record.json"),
    log:
        "logs/pair/{names}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("pair"),
        code=code("pair"),
        demonstrations=flagged("pair", "demonstrations"),
    shell:
        'python "$SELFREFINE/pair.py"'
        " --settings {params.settings:q}"
        " --paths {input.paths}"
        " {params.demonstrations}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule refine:
    """A checkpoint refined on preference pairs."""
    input:
        start=made("refine", "start"),
        questions=made("refine", "items"),
        shots=made("refine", "shots"),
        pairs=made("refine", "pairs"),
        paths=made("refine", "paths"),
    output:
        record=update("results/store/refine/{names}/{key}/record.json"),
    log:
        "logs/refine/{names}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    threads: study.threads.train
    resources:
        gpu=needs("gpu", "refine"),
        mem_mb=needs("mem_mb", "refine"),
        runtime=needs("runtime", "refine"),
        login=0,
    params:
        settings=settings("refine"),
        code=code("refine"),
        # And, where tokens have a budget, the sampled paths.
        shots=flagged("refine", "shots", "paths"),
        allocator=KEEP_MEMORY,
        launcher=launcher,
        compute=flags.compute(),
    shell:
        'HF_HUB_OFFLINE=1 {params.allocator} {params.launcher} "$SELFREFINE/refine.py"'
        " --settings {params.settings:q}"
        " --start {input.start}"
        " --items {input.questions}"
        " {params.shots}"
        " --pairs {input.pairs}"
        " --threads {threads}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule refine_online:
    """A checkpoint refined on what it samples as it learns."""
    input:
        start=made("refine_online", "start"),
        questions=made("refine_online", "items"),
        shots=made("refine_online", "shots"),
    output:
        record=update("results/store/refine_online/{names}/{key}/record.json"),
    log:
        "logs/refine_online/{names}/{key}.log",
    conda:
        STUDENT_ENVIRONMENT
    threads: study.threads.train
    resources:
        gpu=needs("gpu", "refine_online"),
        mem_mb=needs("mem_mb", "refine_online"),
        runtime=needs("runtime", "refine_online"),
        login=0,
    params:
        settings=settings("refine_online"),
        code=code("refine_online"),
        shots=flagged("refine_online", "shots"),
        allocator=KEEP_MEMORY,
        launcher=launcher,
        vllm=flags.vllm_beside_training(),
        compute=flags.compute(),
    shell:
        'HF_HUB_OFFLINE=1 {params.allocator} {params.launcher} "$SELFREFINE/refine_online.py"'
        " --settings {params.settings:q}"
        " --start {input.start}"
        " --items {input.questions}"
        " {params.shots}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
