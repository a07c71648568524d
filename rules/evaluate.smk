# Any checkpoint on any benchmark's test split, with lm-eval and the sampler's own prompts and extraction.


# Exporting writes three small files; data are fetched where Snakemake runs, since nodes often have no network.
localrules:
    export_task,
    fetch_task,


rule export_task:
    """A test split as a task that lm-eval runs."""
    input:
        questions=made("export_task", "items"),
        shots=made("export_task", "shots"),
    output:
        record=update("results/store/export_task/{name}/{key}/record.json"),
    log:
        "logs/export_task/{name}/{key}.log",
    priority: 1
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("export_task"),
        code=code("export_task"),
        shots=flagged("export_task", "shots"),
    shell:
        'python "$SELFREFINE/export_task.py"'
        " --settings {params.settings:q}"
        " --items {input.questions}"
        " {params.shots}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule fetch_task:
    """The data of one of lm-eval's own tasks."""
    output:
        record=update("results/store/fetch_task/{name}/{key}/record.json"),
    log:
        "logs/fetch_task/{name}/{key}.log",
    priority: 1
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("fetch_task"),
        code=code("fetch_task"),
        sources=inputs.sources("fetch_task"),
        include=flags.include(),
    shell:
        'python "$SELFREFINE/fetch_task.py"'
        " --settings {params.settings:q}"
        " {params.include}"
        " --sources {params.sources:q}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule evaluate:
    """A checkpoint's judged answers to a test split."""
    input:
        checkpoint=made("evaluate", "checkpoint"),
        task=made("evaluate", "task"),
        before=evaluations.before(),
    output:
        record=update("results/store/evaluate/{names}/{key}/record.json"),
    log:
        "logs/evaluate/{names}/{key}.log",
    group:
        evaluations.group
    conda:
        STUDENT_ENVIRONMENT
    threads: study.threads.evaluate
    resources:
        gpu=needs("gpu", "evaluate"),
        mem_mb=needs("mem_mb", "evaluate"),
        runtime=evaluations.minutes(),
        login=0,
    params:
        settings=settings("evaluate"),
        code=code("evaluate"),
        also=evaluations.also("evaluate"),
        vllm=flags.vllm(study.engine),
        compute=flags.compute(),
    shell:
        'HF_HUB_OFFLINE=1 python "$SELFREFINE/evaluate.py"'
        " --settings {params.settings:q}"
        " --checkpoint {input.checkpoint}"
        " --task {input.task}"
        " --also {params.also:q}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
