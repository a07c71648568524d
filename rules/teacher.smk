# The teacher answers every item of a split; its correct, whole answers to the training items become demonstrations.


# Looking answers up and keeping the correct ones takes less than a second; queueing for a node takes half a minute.
localrules:
    ask,
    estimate,
    mix,
    demonstrate,


rule teach:
    """What a teacher whose weights are at hand answers to a split."""
    input:
        questions=made("teach", "items"),
        shots=made("teach", "shots"),
        model=made("teach", "model"),
        students=inputs.student_models("teach"),
    output:
        record=update("results/store/teach/{teacher}/{name}/{key}/record.json"),
    log:
        "logs/teach/{teacher}/{name}/{key}.log",
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
        settings=settings("teach"),
        code=code("teach"),
        shots=flagged("teach", "shots"),
        source=flagged("teach", "model"),
        sources=inputs.sources("teach"),
        vllm=flags.teacher_vllm,
        compute=flags.compute(),
    shell:
        'HF_HUB_OFFLINE=1 python "$SELFREFINE/teach.py"'
        " --settings {params.settings:q}"
        " --items {input.questions}"
        " {params.shots}"
        " {params.source}"
        " --sources {params.sources:q}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


# A served teacher needs the network and waits; compute nodes often have none, so it is asked from where Snakemake runs.
# A recorded one is looked up there.
use rule teach as ask with:
    """What a served or recorded teacher answers to a split."""
    wildcard_constraints:
        teacher=teachers_among(study.asked_here()),
    threads: 1
    resources:
        login=1,
    params:
        settings=settings("teach"),
        code=code("teach"),
        shots=flagged("teach", "shots"),
        source=flags.server_or_recording,
        sources=inputs.sources("teach"),
        vllm=flags.teacher_vllm,
        compute=flags.compute(),


rule mix:
    """What the teachers of a mixture answer to a split, each to the items that are drawn for it."""
    input:
        questions=made("mix", "items"),
        answers=made("mix", "answers"),
    output:
        record=update("results/store/mix/{teacher}/{name}/{key}/record.json"),
    log:
        "logs/mix/{teacher}/{name}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("mix"),
        code=code("mix"),
    shell:
        'python "$SELFREFINE/mix.py"'
        " --settings {params.settings:q}"
        " --items {input.questions}"
        " --answers {input.answers}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule estimate:
    """What it would cost to ask the served teachers what is not answered yet; `snakemake estimate`."""
    input:
        questions=inputs.asked_items,
        asked=inputs.asked,
    log:
        "logs/estimate.log",
    conda:
        "../envs/pipeline.yaml"
    shell:
        'python "$SELFREFINE/study.py" estimate --asked {input.asked} | tee {log}'


rule demonstrate:
    """The answers of a teacher that a student learns from."""
    input:
        answers=made("demonstrate", "answers"),
    output:
        record=update("results/store/demonstrate/{names}/{key}/record.json"),
    log:
        "logs/demonstrate/{names}/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("demonstrate"),
        code=code("demonstrate"),
    shell:
        'python "$SELFREFINE/demonstrate.py"'
        " --settings {params.settings:q}"
        " --answers {input.answers}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
