"""Which fields of a protocol have images drawn or references made again, and what is refused."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from hqdm_bench.catalogue import Protocol, load_catalogue
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest

CATALOGUE = load_catalogue(Path(__file__).parents[2])
SCORING = {"is_split": 7, "pr_k": 5, "bootstrap": 9, "clean_fid": True, "extractor": "inception"}
SAMPLING = {
    "steps": 50,
    "eta": 0.5,
    "guidance": 3.0,
    "labels": "iid",
    "order": "sorted",
    "rounding": "floor",
    "images": 128,
    "batch": 32,
    "seed": 1,
    "teacher_precision": "bfloat16",
    "trace_images": 3,
}
REFERENCE = {
    "reference": "others",
    "reference_images": 99,
    "pr_reference_images": 9,
    "extractor": "inception",
    "batch": 32,
    "clean_fid": True,
}


@pytest.fixture
def protocol():
    return CATALOGUE.protocol("mini-imagenet")


@pytest.mark.parametrize("name", SCORING)
def test_scoring_fields_do_not_have_images_drawn_again(protocol, name):
    changed = replace(protocol, **{name: SCORING[name]})
    assert changed != protocol
    assert digest(changed.sampling_fields()) == digest(protocol.sampling_fields())


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling_fields_do(protocol, name):
    changed = replace(protocol, **{name: SAMPLING[name]})
    assert digest(changed.sampling_fields()) != digest(protocol.sampling_fields())


def test_sets_without_a_trace_have_the_digest_of_before(protocol):
    """A field that came later must not have sets drawn again that it does not change."""
    without = replace(protocol, trace_images=0)
    assert "trace_images" not in without.sampling_fields()
    later = {"bootstrap", "trace_images", "clean_fid"}
    scoring = {"name", "reference", "reference_images", "pr_reference_images"}
    scoring |= {"extractor", "is_split", "pr_k"}
    names = {field.name for field in fields(Protocol)} - later - scoring
    assert without.sampling_fields().keys() == names


@pytest.mark.parametrize("name", {**SAMPLING, **SCORING, **REFERENCE})
def test_references_are_made_again_for_their_own_fields_only(protocol, name):
    changed = replace(protocol, **{name: {**SAMPLING, **SCORING, **REFERENCE}[name]})
    same = digest(changed.reference_fields()) == digest(protocol.reference_fields())
    assert same == (name not in REFERENCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bootstrap": 1}, "bootstrap is 1; a standard error needs at least 2 replicates"),
        ({"bootstrap": -5}, "bootstrap is -5"),
        ({"trace_images": 385}, "trace_images is 385; take 0 to 384, its number of images"),
        ({"trace_images": -1}, "trace_images is -1"),
    ],
)
def test_impossible_values_are_refused(protocol, change, message):
    with pytest.raises(BenchError, match=message):
        replace(protocol, **change)


def test_every_suite_has_replicates_and_traces():
    for suite in CATALOGUE.suites.values():
        for entry in suite.models:
            protocol = CATALOGUE.protocol(entry.protocol)
            assert protocol.bootstrap >= 20
            assert protocol.trace_images >= 8
