# Tables and figures: in the paper's shape, and of the project's own studies.


rule table:
    input:
        table_inputs,
    output:
        report(
            "results/{suite}/tables/table{number}.md",
            caption="../report/table.rst",
            category="Tables",
            subcategory="of the paper",
            labels={"suite": "{suite}", "table": "{number}"},
        ),
        "results/{suite}/tables/table{number}.csv",
        "results/{suite}/tables/table{number}.tex",
    log:
        "logs/{suite}/table{number}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        methods=lambda wildcards: digest(
            [
                [str(cell), CATALOGUE.methods[cell.method].title]
                for cell in table_cells(wildcards)
            ]
        ),
    shell:
        "hqdm-bench table --suite {wildcards.suite} --number {wildcards.number} 2> {log}"


rule report_table:
    input:
        report_inputs,
    output:
        report(
            "results/{suite}/tables/{report}.md",
            caption="../report/own_table.rst",
            category="Tables",
            subcategory="of this project",
            labels={"suite": "{suite}", "table": "{report}"},
        ),
        "results/{suite}/tables/{report}.csv",
        "results/{suite}/tables/{report}.tex",
    log:
        "logs/{suite}/{report}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        shown=lambda wildcards: shown_in_reports(wildcards.suite),
        verb=report_verb,
    shell:
        "hqdm-bench {params.verb} --suite {wildcards.suite} 2> {log}"


rule claims:
    input:
        claims_inputs,
    output:
        report(
            "results/{suite}/claims.md",
            caption="../report/claims.rst",
            category="Claims",
            labels={"suite": "{suite}"},
        ),
        "results/{suite}/claims.json",
    log:
        "logs/{suite}/claims.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        shown=lambda wildcards: shown_in_claims(wildcards.suite),
    shell:
        "hqdm-bench claims --suite {wildcards.suite} 2> {log}"


rule suite_page:
    input:
        page_files,
    output:
        report(
            "results/{suite}/index.html",
            caption="../report/page.rst",
            category="Overview",
            labels={"suite": "{suite}", "what": "page"},
        ),
    log:
        "logs/{suite}/page.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        shown=lambda wildcards: shown_on_page(wildcards.suite),
    shell:
        "hqdm-bench page --suite {wildcards.suite} 2> {log}"


rule baseline_table:
    input:
        lambda wildcards: [
            str(LAYOUT.metrics(cell)) for cell in baseline_cells(wildcards)
        ],
        [local(f"paper/data/table{number}.csv") for number in (1, 2, 3)],
    output:
        report(
            "results/{suite}/baselines.md",
            caption="../report/baselines.rst",
            category="Baselines",
            labels={"suite": "{suite}"},
        ),
        "results/{suite}/baselines.csv",
    log:
        "logs/{suite}/baselines.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=500,
        runtime=5,
    shell:
        "hqdm-bench baselines --suite {wildcards.suite} 2> {log}"


rule figure:
    input:
        drawn_from,
    output:
        "figures/{suite}/{figure}.pdf",
        report(
            "figures/{suite}/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            subcategory=figure_group,
            labels=figure_labels,
        ),
    log:
        "logs/{suite}/{figure}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=5,
    params:
        entry=shown_in_figure,
        kind=figure_kind,
    shell:
        "hqdm-bench figure --suite {wildcards.suite} --name {wildcards.figure} 2> {log}"
