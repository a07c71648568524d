# Phase 1: a student's adapter, fine-tuned on a share of a teacher's demonstrations.


rule instruct:
    input:
        start="results/checkpoints/{student}/base/manifest.json",
        questions="results/benchmarks/{task}/train.jsonl",
        demonstrations="results/demonstrations/{teacher}/{task}.jsonl",
    output:
        multiext(
            "results/checkpoints/{student}/instruct/{teacher}/{task}/{share}/{seed}/",
            manifest="manifest.json",
            training="training.jsonl",
            provenance="provenance.json",
        ),
    log:
        "logs/instruct/{student}/{teacher}/{task}/{share}/{seed}.log",
    conda:
        "../envs/pipeline.yaml"
    threads: study.threads.train
    resources:
        gpu=needs("gpu", "instruct"),
        mem_mb=needs("mem_mb", "instruct"),
        runtime=needs("runtime", "instruct"),
        login=0,
    params:
        recipe=recipe("instruct"),
        code=code("scripts/instruct.py"),
        allocator=KEEP_MEMORY,
        launcher=launcher,
        compute=compute_flag(),
    shell:
        "HF_HUB_OFFLINE=1 {params.allocator} {params.launcher} scripts/instruct.py"
        " --recipe {params.recipe:q}"
        " --start {input.start}"
        " --items {input.questions}"
        " --demonstrations {input.demonstrations}"
        " --threads {threads}"
        " {params.compute}"
        " --manifest {output.manifest}"
        " --log {output.training}"
        " --provenance {output.provenance}"
        " &> {log}"
