# One student per cell of the grid: calibrated and distilled on the teacher's trajectories.


rule train_student:
    input:
        "results/{suite}/{model}/teacher.safetensors",
        "results/{suite}/{model}/trajectories.safetensors",
        # A gate: its age says nothing about the student.
        ancient(acceptance),
    output:
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/student.safetensors",
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/history.csv",
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/training.json",
        "results/{suite}/{model}/{method}/{bits}/seed{seed}/cost.json",
    log:
        "logs/{suite}/{model}/{method}/{bits}/seed{seed}/train.log",
    benchmark:
        "logs/{suite}/benchmark/{model}.{method}.{bits}.seed{seed}.train.tsv"
    wildcard_constraints:
        method="|".join(TRAINED),
    conda:
        "../../environment.yml"
    resources:
        gpu=on_gpu,
        mem_mb=memory(32000, 3000),
        runtime=minutes(720, 30),
    params:
        device=device_of,
        method=lambda wildcards: digest(
            [
                method_of(wildcards).asdict(),
                recipe_of(wildcards).of(method_of(wildcards)).asdict(),
            ]
        ),
    shell:
        "hqdm-bench train --suite {wildcards.suite} --model {wildcards.model} --method {wildcards.method}"
        " --bits {wildcards.bits} --seed {wildcards.seed} --device {params.device} 2> {log}"
