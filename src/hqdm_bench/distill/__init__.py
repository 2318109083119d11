"""Distillation of students along cached teacher trajectories."""

from hqdm_bench.distill.adamw import AdamW
from hqdm_bench.distill.calibrate import calibrate, calibrate_on_batch
from hqdm_bench.distill.calibration_set import calibration_calls
from hqdm_bench.distill.history import History
from hqdm_bench.distill.loop import distill, eps_loss, guided_loss
from hqdm_bench.distill.noise_correction import (
    Paths,
    sampled_noise_errors,
)
from hqdm_bench.distill.observe import calibrate_on_calls
from hqdm_bench.distill.optimiser import Optimiser
from hqdm_bench.distill.post_training import RUNNERS, Work, post_train, run_stage
from hqdm_bench.distill.probes import exact_activations
from hqdm_bench.distill.reconstruction import (
    Reconstructed,
    reconstruct_steps,
    reconstruct_weights,
)
from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.distill.train import Trained, stages_file, train_student
from hqdm_bench.distill.trajectories import (
    Rolled,
    Trajectories,
    generate,
    load_trajectories,
    roll,
    save_trajectories,
    training_sequence,
)
from hqdm_bench.distill.validate import NoiseErrors, noise_error, noise_errors

__all__ = [
    "RUNNERS",
    "AdamW",
    "History",
    "NoiseErrors",
    "Optimiser",
    "Paths",
    "Reconstructed",
    "Rolled",
    "StageLog",
    "Trained",
    "Trajectories",
    "Work",
    "calibrate",
    "calibrate_on_batch",
    "calibrate_on_calls",
    "calibration_calls",
    "distill",
    "eps_loss",
    "exact_activations",
    "generate",
    "guided_loss",
    "load_trajectories",
    "noise_error",
    "noise_errors",
    "post_train",
    "reconstruct_steps",
    "reconstruct_weights",
    "roll",
    "run_stage",
    "sampled_noise_errors",
    "save_trajectories",
    "stages_file",
    "train_student",
    "training_sequence",
]
