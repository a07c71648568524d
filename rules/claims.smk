# The verdicts on the paper's claims.


localrules:
    claims,


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
