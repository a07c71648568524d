# The teacher answers every item of a split; its right, whole answers to the training items become demonstrations.


# Looking answers up and keeping the right ones takes less than a second; queueing for a node takes half a minute.
localrules:
    ask,
    estimate,
    demonstrate,


rule teach:
    input:
        unpack(teacher_source),
        questions="results/benchmarks/{task}/{split}.jsonl",
    output:
        answers="results/completions/{teacher}/{task}/{split}-{style}.jsonl",
        provenance="results/completions/{teacher}/{task}/{split}-{style}.provenance.json",
    log:
        "logs/teach/{teacher}/{task}/{split}-{style}.log",
    wildcard_constraints:
        teacher=teachers_but(study.asked_here()),
    conda:
        TEACHER_ENVIRONMENT
    threads: study.threads.generate
    resources:
        gpu=needs("gpu", "teach"),
        mem_mb=needs("mem_mb", "teach"),
        runtime=needs("runtime", "teach"),
        login=0,
    params:
        recipe=recipe("teach"),
        code=code("scripts/teach.py"),
        source=flags(teacher_source),
        vllm=teacher_vllm_flags,
        compute=compute_flag(),
    shell:
        "HF_HUB_OFFLINE=1 python scripts/teach.py"
        " --recipe {params.recipe:q}"
        " --items {input.questions}"
        " {params.source}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --output {output.answers}"
        " --provenance {output.provenance}"
        " &> {log}"


# A served teacher needs the network and waits; compute nodes often have none, so it is asked from where Snakemake runs.
# A recorded one is looked up there.
use rule teach as ask with:
    wildcard_constraints:
        teacher=teachers_among(study.asked_here()),
    threads: 1
    resources:
        login=1,
    params:
        recipe=recipe("teach"),
        code=code("scripts/teach.py"),
        source=server_or_recording,
        vllm=teacher_vllm_flags,
        compute=compute_flag(),


# `snakemake estimate` says what the requests that are not answered yet would cost.
rule estimate:
    input:
        [row["items"] for row in study.asked()],
        asked="results/index/asked.json",
    log:
        "logs/estimate.log",
    conda:
        "../envs/pipeline.yaml"
    shell:
        "python scripts/estimate.py --asked {input.asked} | tee {log}"


rule demonstrate:
    input:
        answers="results/completions/{teacher}/{task}/train-cot.jsonl",
    output:
        demonstrations="results/demonstrations/{teacher}/{task}.jsonl",
        provenance="results/demonstrations/{teacher}/{task}.provenance.json",
    log:
        "logs/demonstrate/{teacher}/{task}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("demonstrate"),
        code=code("scripts/demonstrate.py"),
    shell:
        "python scripts/demonstrate.py"
        " --recipe {params.recipe:q}"
        " --answers {input.answers}"
        " --output {output.demonstrations}"
        " --provenance {output.provenance}"
        " &> {log}"
