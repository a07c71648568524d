# The verdicts on the paper's claims.


localrules:
    claims,


rule claims:
    input:
        [cell["samples"] for cell in INDEX["cells"]],
        index="results/index/tables.json",
    output:
        markdown=report("results/claims.md", category="Claims", caption="../report/claims.rst"),
        json="results/claims.json",
        provenance="results/claims.provenance.json",
    log:
        "logs/claims.log",
    conda:
        "../envs/pipeline.yaml"
    params:
        recipe=recipe("claims"),
        code=code("scripts/claims.py"),
    shell:
        "python scripts/claims.py"
        " --recipe {params.recipe:q}"
        " --index {input.index}"
        " --markdown {output.markdown}"
        " --json {output.json}"
        " --provenance {output.provenance}"
        " &> {log}"
