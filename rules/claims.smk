# The verdicts on the paper's claims, as configured and under other choices.


localrules:
    claims,
    flips,


rule claims:
    """The verdict on each of the paper's claims, with every comparison behind it."""
    input:
        index=made("claims", "index"),
        policy=made("claims", "policy"),
        samples=made("claims", "samples"),
        behind=made("claims", "behind"),
    output:
        report(
            update("results/store/claims/{key}/claims.md"),
            category="Claims",
            caption="../report/claims.rst",
        ),
        record=update("results/store/claims/{key}/record.json"),
    log:
        "logs/claims/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("claims"),
        code=code("claims"),
    shell:
        'python "$SELFREFINE/claims.py"'
        " --settings {params.settings:q}"
        " --index {input.index}"
        " --policy {input.policy}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"


rule flips:
    """The verdict on each claim under every other choice that the study's data allow for."""
    input:
        index=made("flips", "index"),
        claims=made("flips", "claims"),
        samples=made("flips", "samples"),
        behind=made("flips", "behind"),
    output:
        report(
            update("results/store/flips/{key}/flips.csv"),
            category="Claims",
            caption="../report/flips.rst",
        ),
        record=update("results/store/flips/{key}/record.json"),
    log:
        "logs/flips/{key}.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        settings=settings("flips"),
        code=code("flips"),
    shell:
        'python "$SELFREFINE/flips.py"'
        " --settings {params.settings:q}"
        " --index {input.index}"
        " --claims {input.claims}"
        " --code {params.code:q}"
        " --record {output.record}"
        " &> {log}"
