# HQ-DM Bench: from checkpoints to every table and figure. `snakemake -n all` shows what a run would do.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/artefacts.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/students.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/preflight.smk"


rule all:
    default_target: True
    input:
        suite_targets("paper"),


rule search:
    input:
        suite_targets("search"),


rule mini:
    input:
        suite_targets("mini"),


rule smoke:
    input:
        suite_targets("smoke"),


rule differences:
    input:
        suite_targets("differences"),


rule outliers:
    input:
        suite_targets("outliers"),


rule plus:
    input:
        suite_targets("plus"),


rule tuning:
    input:
        suite_targets("tuning"),
