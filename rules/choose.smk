# Which training items a teacher is asked, chosen before it is asked: only studies with `demonstrations.select` do.


rule embed:
    """A student's perplexity and embedding of each training question."""
    input:
        checkpoint=made("embed", "checkpoint"),
        questions=made("embed", "items"),
    output:
        record=update("results/store/embed/{names}/{key}/record.json"),
    log:
        "logs/embed/{names}/{key}.log",
    # Teachers wait for it.
    priority: 1
    conda:
        "../envs/pipeline.yaml"
    threads: study.threads.generate
    resources:
        gpu=needs("gpu", "embed"),
        mem_mb=needs("mem_mb", "embed"),
        runtime=needs("runtime", "embed"),
        login=0,
    params:
        settings=settings("embed"),
        code=code("embed"),
        compute=flags.compute(),
    shell:
        'HF_HUB_OFFLINE=1 python "$SELFREFINE/embed.py"'
        " --settings {params.settings:q}"
        " --checkpoint {input.checkpoint}"
        " --items {input.questions}"
        " --threads {threads}"
        " {params.compute}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule choose:
    """The training items of a share, chosen by what the student makes of the questions."""
    input:
        questions=made("choose", "items"),
        embeddings=made("choose", "embeddings"),
    output:
        record=update("results/store/choose/{names}/{key}/record.json"),
    log:
        "logs/choose/{names}/{key}.log",
    priority: 1
    conda:
        "../envs/pipeline.yaml"
    threads: study.threads.generate
    resources:
        gpu=0,
        mem_mb=needs("mem_mb", "choose"),
        runtime=needs("runtime", "choose"),
        login=0,
    params:
        settings=settings("choose"),
        code=code("choose"),
        embeddings=flagged("choose", "embeddings"),
    shell:
        'python "$SELFREFINE/choose.py"'
        " --settings {params.settings:q}"
        " --items {input.questions}"
        " {params.embeddings}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
