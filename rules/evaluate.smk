# Any checkpoint on any benchmark's test split, with lm-eval and the sampler's own prompts and extraction.


# Exporting writes three small files.
localrules:
    export_task,


rule export_task:
    """A test split as a task that lm-eval runs."""
    input:
        questions=made("export_task", "items"),
    output:
        record=update("results/store/export_task/{name}/{key}/record.json"),
    log:
        "logs/export_task/{name}/{key}.log",
    priority: 1
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("export_task"),
        code=code("export_task"),
    shell:
        'python "$SELFREFINE/export_task.py"'
        " --recipe {params.recipe:q}"
        " --items {input.questions}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule evaluate:
    """A checkpoint's judged answers to a test split."""
    input:
        checkpoint=made("evaluate", "checkpoint"),
        task=made("evaluate", "task"),
        before=evaluated_before,
    output:
        record=update("results/store/evaluate/{names}/{key}/record.json"),
    log:
        "logs/evaluate/{names}/{key}.log",
    group:
        EVALUATIONS
    conda:
        STUDENT_ENVIRONMENT
    threads: study.threads.evaluate
    resources:
        gpu=needs("gpu", "evaluate"),
        mem_mb=needs("mem_mb", "evaluate"),
        runtime=evaluation_minutes,
        login=0,
    params:
        recipe=recipe("evaluate"),
        code=code("evaluate"),
        also=also("evaluate"),
        vllm=vllm_flags(study.engine),
        compute=compute_flag(),
    shell:
        'HF_HUB_OFFLINE=1 python "$SELFREFINE/evaluate.py"'
        " --recipe {params.recipe:q}"
        " --checkpoint {input.checkpoint}"
        " --task {input.task}"
        " --also {params.also:q}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
