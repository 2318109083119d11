# Images in shards, features stored once, metrics from features.


rule sample_shard:
    input:
        "results/{suite}/{model}/teacher.safetensors",
        weights_of,
    output:
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/{protocol}/samples/shard{shard}.npz",
    log:
        "logs/{suite}/{model}/{method}/{bits}/seed{seed}/{protocol}/sample{shard}.log",
    benchmark:
        "logs/{suite}/benchmark/{model}.{method}.{bits}.seed{seed}.{protocol}.sample{shard}.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=on_gpu,
        mem_mb=memory(32000, 3000),
        disk_mb=image_disk,
        runtime=minutes(240, 30),
    params:
        device=device_of,
        drawn=drawing,
    shell:
        "hqdm-bench sample --suite {wildcards.suite} --model {wildcards.model} --method {wildcards.method}"
        " --bits {wildcards.bits} --seed {wildcards.seed} --protocol {wildcards.protocol}"
        " --shard {wildcards.shard} --device {params.device} 2> {log}"


rule evaluate_cell:
    input:
        lambda wildcards: shards_of(cell_of(wildcards)),
        fp_shards,
        "results/{suite}/extractor.safetensors",
        "results/{suite}/{model}/reference.safetensors",
        # Not read: metrics older than the weights are out of date even if the images are gone.
        "results/{suite}/{model}/teacher.safetensors",
        weights_of,
    output:
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/{protocol}/features.safetensors",
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/{protocol}/metrics.json",
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/{protocol}/replicates.safetensors",
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/{protocol}/preview.png",
    log:
        "logs/{suite}/{model}/{method}/{bits}/seed{seed}/{protocol}/evaluate.log",
    benchmark:
        "logs/{suite}/benchmark/{model}.{method}.{bits}.seed{seed}.{protocol}.evaluate.tsv"
    conda:
        "../../environment.yml"
    threads: scoring_threads
    resources:
        gpu=on_gpu,
        mem_mb=memory(32000, 3000),
        runtime=minutes(120, 10),
    params:
        device=device_of,
        protocol=lambda wildcards: digest(protocol_of(wildcards).asdict()),
        lpips=lpips_option,
    shell:
        "hqdm-bench evaluate --suite {wildcards.suite} --model {wildcards.model} --method {wildcards.method}"
        " --bits {wildcards.bits} --seed {wildcards.seed} --protocol {wildcards.protocol}"
        " --device {params.device} {params.lpips} 2> {log}"


rule accept_baseline:
    input:
        lambda wildcards: [
            str(LAYOUT.metrics(cell)) for cell in checked_baselines(wildcards)
        ],
    output:
        "results/{suite}/{model}/acceptance.json",
    log:
        "logs/{suite}/{model}/acceptance.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=500,
        runtime=5,
    params:
        policy=config["acceptance"],
        expect=lambda wildcards: digest(
            [
                [baseline.cell.protocol, baseline.expect]
                for baseline in CATALOGUE.suite(wildcards.suite)
                .model(wildcards.model)
                .baselines
            ]
        ),
    shell:
        "hqdm-bench accept --suite {wildcards.suite} --model {wildcards.model}"
        " --policy {params.policy} 2> {log}"
