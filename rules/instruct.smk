# Phase 1: a student's adapter, fine-tuned on a share of a teacher's demonstrations.


rule instruct:
    """A checkpoint that has learned from a teacher's demonstrations."""
    input:
        start=made("instruct", "start"),
        questions=made("instruct", "items"),
        shots=made("instruct", "shots"),
        demonstrations=made("instruct", "demonstrations"),
    output:
        record=update("results/store/instruct/{names}/{key}/record.json"),
    log:
        "logs/instruct/{names}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    threads: study.threads.train
    resources:
        gpu=needs("gpu", "instruct"),
        mem_mb=needs("mem_mb", "instruct"),
        runtime=needs("runtime", "instruct"),
        login=0,
    params:
        settings=settings("instruct"),
        code=code("instruct"),
        shots=flagged("instruct", "shots"),
        allocator=KEEP_MEMORY,
        launcher=launcher,
        compute=flags.compute(),
    shell:
        'HF_HUB_OFFLINE=1 {params.allocator} {params.launcher} "$SELFREFINE/instruct.py"'
        " --settings {params.settings:q}"
        " --start {input.start}"
        " --items {input.questions}"
        " {params.shots}"
        " --demonstrations {input.demonstrations}"
        " --threads {threads}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
