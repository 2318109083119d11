# Checkpoints and references of the paper suite.


# On the machine where Snakemake runs: compute nodes seldom reach the internet.
localrules:
    fetch_artefact,


rule fetch_artefact:
    output:
        "artefacts/{artefact}",
    log:
        "logs/artefacts/{artefact}.log",
    wildcard_constraints:
        artefact="|".join(entry.file for entry in CATALOGUE.artefacts.values()),
    retries: 2
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        disk_mb=lambda wildcards: 1 + artefact_of(wildcards).about_bytes // 10**6,
        runtime=240,
    params:
        name=lambda wildcards: artefact_of(wildcards).name,
    shell:
        "hqdm-bench fetch {params.name} 2> {log}"


rule convert_checkpoint:
    input:
        lambda wildcards: f"artefacts/{CATALOGUE.artefacts[CATALOGUE.models[wildcards.model].artefact].file}",
    output:
        "results/{suite}/{model}/teacher.safetensors",
    log:
        "logs/{suite}/{model}/teacher.log",
    wildcard_constraints:
        model="|".join(CHECKPOINTS),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=16000,
        disk_mb=8000,
        runtime=30,
    params:
        ema=lambda wildcards: CATALOGUE.models[wildcards.model].ema,
    shell:
        "hqdm-bench convert --suite {wildcards.suite} --model {wildcards.model} 2> {log}"


rule inception_extractor:
    input:
        f"artefacts/{CATALOGUE.artefacts['inception'].file}",
    output:
        "results/{suite}/extractor.safetensors",
        "results/{suite}/extractor.json",
    log:
        "logs/{suite}/extractor.log",
    wildcard_constraints:
        suite="|".join(
            name
            for name, suite in CATALOGUE.suites.items()
            if suite.extractor == "inception"
        ),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=10,
    shell:
        "hqdm-bench extractor --suite {wildcards.suite} 2> {log}"


rule published_reference:
    input:
        lambda wildcards: f"artefacts/{CATALOGUE.artefacts[protocol_of(wildcards).reference].file}",
        "results/{suite}/extractor.safetensors",
    output:
        "results/{suite}/{model}/reference.safetensors",
    log:
        "logs/{suite}/{model}/reference.log",
    wildcard_constraints:
        model="|".join(CHECKPOINTS),
    conda:
        "../../environment.yml"
    threads: scoring_threads
    resources:
        gpu=on_gpu,
        mem_mb=32000,
        disk_mb=8000,
        runtime=120,
    params:
        device=device_of,
        protocol=lambda wildcards: digest(protocol_of(wildcards).reference_fields()),
    shell:
        "hqdm-bench reference --suite {wildcards.suite} --model {wildcards.model}"
        " --device {params.device} 2> {log}"
