# Embedded models, their feature extractor, and what is computed once per teacher.


rule mini_extractor:
    output:
        "results/{suite}/extractor.safetensors",
        "results/{suite}/extractor.json",
    log:
        "logs/{suite}/extractor.log",
    benchmark:
        "logs/{suite}/benchmark/extractor.tsv"
    wildcard_constraints:
        suite="|".join(
            name
            for name, suite in CATALOGUE.suites.items()
            if suite.extractor == "mini-classifier"
        ),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        teachers=config["teachers"],
    shell:
        "hqdm-bench extractor --suite {wildcards.suite} --teachers {params.teachers} 2> {log}"


rule embedded_teacher:
    output:
        "results/{suite}/{model}/teacher.safetensors",
        "results/{suite}/{model}/teacher.json",
    log:
        "logs/{suite}/{model}/teacher.log",
    benchmark:
        "logs/{suite}/benchmark/{model}.teacher.tsv"
    wildcard_constraints:
        model="|".join(EMBEDDED),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=3000,
        runtime=90,
    params:
        teachers=config["teachers"],
        spec=lambda wildcards: digest(CATALOGUE.models[wildcards.model].asdict()),
    shell:
        "hqdm-bench teacher --suite {wildcards.suite} --model {wildcards.model}"
        " --teachers {params.teachers} 2> {log}"


rule scenes_reference:
    input:
        "results/{suite}/extractor.safetensors",
    output:
        "results/{suite}/{model}/reference.safetensors",
    log:
        "logs/{suite}/{model}/reference.log",
    benchmark:
        "logs/{suite}/benchmark/{model}.reference.tsv"
    wildcard_constraints:
        model="|".join(EMBEDDED),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=3000,
        gpu=on_gpu,
        runtime=30,
    params:
        device=device_of,
        protocol=lambda wildcards: digest(protocol_of(wildcards).reference_fields()),
    shell:
        "hqdm-bench reference --suite {wildcards.suite} --model {wildcards.model}"
        " --device {params.device} 2> {log}"


rule teacher_trajectories:
    input:
        "results/{suite}/{model}/teacher.safetensors",
    output:
        "results/{suite}/{model}/trajectories.safetensors",
    log:
        "logs/{suite}/{model}/trajectories.log",
    benchmark:
        "logs/{suite}/benchmark/{model}.trajectories.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=on_gpu,
        mem_mb=memory(16000, 3000),
        runtime=minutes(240, 30),
    params:
        device=device_of,
        path=lambda wildcards: digest(recipe_of(wildcards).trajectory_fields()),
    shell:
        "hqdm-bench trajectories --suite {wildcards.suite} --model {wildcards.model}"
        " --device {params.device} 2> {log}"


rule channel_outliers:
    input:
        "results/{suite}/{model}/teacher.safetensors",
        "results/{suite}/{model}/trajectories.safetensors",
    output:
        "results/{suite}/{model}/outliers.safetensors",
    log:
        "logs/{suite}/{model}/outliers.log",
    benchmark:
        "logs/{suite}/benchmark/{model}.outliers.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=on_gpu,
        mem_mb=memory(16000, 3000),
        runtime=30,
    params:
        device=device_of,
        shown=lambda wildcards: digest(
            CATALOGUE.suite(wildcards.suite).model(wildcards.model).outliers
        ),
    shell:
        "hqdm-bench outliers --suite {wildcards.suite} --model {wildcards.model}"
        " --device {params.device} 2> {log}"
