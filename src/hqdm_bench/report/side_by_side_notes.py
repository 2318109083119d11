"""The words around report `methods`: how ranks and costs are read, and what they cannot show."""

from collections.abc import Sequence
from typing import Any

from hqdm_bench.report.granularity import GRIDS_NOTE
from hqdm_bench.report.quantities import MINI_EXTRACTOR
from hqdm_bench.report.results import common_protocol
from hqdm_bench.report.side_by_side import IMAGE_KEYS, ModelGroup
from hqdm_bench.report.study_text import TIMES
from hqdm_bench.report.table_notes import (
    GUIDANCE_NOTE,
    LIKE_NOTE,
    MULTIPLE_NOTE,
    interval_notes,
    protocol_line,
    thousands,
)

__all__ = ["COST_NOTES", "INTRO", "cannot_show", "images_remark", "rank_notes"]

INTRO = (
    "Every method of the suite in one run, on the same model, images and noise: its rank at each "
    "bit-width, what it quantizes and how finely, and what making it took."
)
RANK_NOTE = (
    "Rank: one method is ahead of another where the 95 % interval of their paired difference "
    "excludes zero. “2 to 4” of nine: one method is ahead of it, it is ahead of five, and the "
    "others are not told apart from it, so they share places. Bold: ahead of every other at its "
    "bits. Rows stand in the order of their mean noise error, which is not their rank."
)
QUANTITY_NOTE = (
    "Noise error: squared error of the predicted noise over the teacher's energy on held-out "
    "trajectories, whose images its brackets are over; lower is better."
)
COST_NOTE = (
    "Time, memory and network inputs are of calibration and training, recorded by the run: time "
    "and inputs are means over the seeds, memory, libraries included, that of the seed that took "
    "most. They depend on the machine and what else ran on it. Extra parameters: numbers a "
    "student keeps beside weights and biases, such as step sizes of every step, scaling vectors "
    "and correction tables. Empty: the run recorded none."
)
SIZE_NOTE = (
    "Low-bit: at the bits of the row; multiply-accumulates (MACs) of convolutions and linear "
    "layers. Size: codes packed without gaps, float32 elsewhere, step sizes and zero-points. "
    f"BOPs: MACs {TIMES} weight bits {TIMES} activation bits of one pass for one image."
)
COMMON_SEEDS_NOTE = (
    "Two methods are compared on the training seeds that both have: a mean over three seeds stands "
    "beside a rank that, against a method of one seed, rests on one."
)
ONE_SEED_NOTE = (
    "Where two methods share one training seed, their difference is taken over its images, "
    "resampled alike: a method ahead there is ahead with these two students, and another seed may "
    "turn it."
)
COST_NOTES = (GRIDS_NOTE, SIZE_NOTE, COST_NOTE)


def images_remark(group: ModelGroup) -> str:
    """How the images of a model were drawn and scored; empty without images."""
    if not set(group.keys) & set(IMAGE_KEYS):
        return ""
    return f"Images: {protocol_line(*common_protocol(group.results))}."


def rank_notes(groups: Sequence[ModelGroup], extractor: str) -> tuple[str, ...]:
    """How ranks and values are read, in the order of importance."""
    entries = [entry for group in groups for entry in group.entries]
    lines = [RANK_NOTE, MULTIPLE_NOTE]
    lines += interval_notes(value for entry in entries for value in entry.values.values())
    if any(len(entry.seeds) == 1 for entry in entries if entry.ranks):
        lines.append(ONE_SEED_NOTE)
    if any(len({len(entry.seeds) for entry in block}) > 1 for g in groups for block in g.blocks):
        lines.append(COMMON_SEEDS_NOTE)
    lines.append(QUANTITY_NOTE)
    scored = [group for group in groups if set(group.keys) & set(IMAGE_KEYS)]
    if scored and extractor == MINI_EXTRACTOR:
        lines.append(LIKE_NOTE)
    if any(common_protocol(group.results)[0]["guidance"] > 1 for group in scored):
        lines.append(GUIDANCE_NOTE)
    return tuple(lines)


def cannot_show(groups: Sequence[ModelGroup], extractor: str) -> tuple[str, ...]:
    """What a ranking of these models cannot show."""
    found = []
    if any(group.model.source == "embedded" for group in groups):
        found += [
            "Which method is ahead on the paper's models: these are small, their images are drawn "
            "by the package, and outliers, redundancy and the room that training has are others.",
            "What a method costs at that size: only the ratio of two times measured here, and it "
            "shifts with the size of the network and the share of the updates.",
        ]
        found += _budgets(groups)
    if extractor == MINI_EXTRACTOR and any(set(group.keys) & set(IMAGE_KEYS) for group in groups):
        found.append(
            "FID in Inception features of 50 000 images: a few hundred images in the features of a "
            "small classifier stand in."
        )
    if any(len(entry.seeds) == 1 for group in groups for entry in group.entries if entry.ranks):
        found.append(
            "Whether training again would turn the order, where a method has one seed: its "
            "interval is over images."
        )
    found.append(
        "That two methods are equal: a shared place says that these images and seeds do not tell "
        "them apart."
    )
    return tuple(found)


def _budgets(groups: Sequence[ModelGroup]) -> list[str]:
    """How far the budgets of the run are from the released ones."""
    found: dict[str, None] = {}
    for group in groups:
        for result in group.results:
            recipe: dict[str, Any] = (result.training or {}).get("recipe", {})
            if recipe.get("post_training"):
                found[_post_training_budget(recipe["post_training"].get("scale", {}))] = None
            elif "steps" in recipe and "trajectories" in recipe:
                updates = thousands(recipe["steps"] * recipe["trajectories"])
                found[
                    f"What a method does at its released budget: trained students had {updates} "
                    "updates of the paper's 16 000."
                ] = None
    return list(found)


def _post_training_budget(scale: dict[str, Any]) -> str:
    share = {key: f"{100 * scale.get(key, 1):g} %" for key in ("updates", "data")}
    return (
        "What a method does at its released budget: post-training methods had about "
        f"{share['updates']} of their updates, at {scale.get('rates', 1):g} times the learning "
        f"rates of weights, and {share['data']} of their calibration images."
    )
