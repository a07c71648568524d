# Any checkpoint on any benchmark's test split, with lm-eval and the sampler's own prompts and extraction.


# Exporting writes three small files. Evaluating is a cluster's job each time: a model of 7B is loaded within a minute and
# writes for several, beside which half a minute of queueing is little, and a group would ask for the memory of all its
# members together and for time that holds them one after the other.
localrules:
    export_task,


rule export_task:
    input:
        questions="results/benchmarks/{task}/test.jsonl",
    output:
        yaml="results/lm_eval/{task}/{task}.yaml",
        documents="results/lm_eval/{task}/docs.jsonl",
        extraction="results/lm_eval/{task}/answers.py",
        provenance="results/lm_eval/{task}/provenance.json",
    log:
        "logs/export_task/{task}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("export_task"),
        code=code("scripts/export_task.py"),
    shell:
        "python scripts/export_task.py"
        " --recipe {params.recipe:q}"
        " --items {input.questions}"
        " --yaml {output.yaml}"
        " --provenance {output.provenance}"
        " &> {log}"


rule evaluate:
    input:
        checkpoint="results/checkpoints/{checkpoint}/manifest.json",
        task="results/lm_eval/{task}/{task}.yaml",
        documents="results/lm_eval/{task}/docs.jsonl",
        extraction="results/lm_eval/{task}/answers.py",
    output:
        report="results/reports/{checkpoint}/{task}.json",
        samples="results/reports/{checkpoint}/{task}.samples.jsonl",
        provenance="results/reports/{checkpoint}/{task}.provenance.json",
    log:
        "logs/evaluate/{checkpoint}/{task}.log",
    conda:
        STUDENT_ENVIRONMENT
    threads: study.threads.evaluate
    resources:
        gpu=needs("gpu", "evaluate"),
        mem_mb=needs("mem_mb", "evaluate"),
        runtime=needs("runtime", "evaluate"),
        login=0,
    params:
        recipe=recipe("evaluate"),
        code=code("scripts/evaluate.py"),
        vllm=vllm_flags(study.engine),
        compute=compute_flag(),
    shell:
        "HF_HUB_OFFLINE=1 python scripts/evaluate.py"
        " --recipe {params.recipe:q}"
        " --checkpoint {input.checkpoint}"
        " --task {input.task}"
        " --threads {threads}"
        " {params.vllm}"
        " {params.compute}"
        " --report {output.report}"
        " --samples {output.samples}"
        " --provenance {output.provenance}"
        " &> {log}"
