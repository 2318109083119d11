"""Verbs of the project's own tables: which suites have them, and what they call."""

from pathlib import Path

import pytest

from hqdm_bench.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("verb", "suite"),
    [("differences", "outliers"), ("comparison", "plus"), ("methods-table", "mini")],
)
def test_the_report_is_written_for_the_suite(monkeypatch, verb, suite):
    calls = []
    monkeypatch.setattr(
        f"hqdm_bench.report.write_{verb.removesuffix('-table')}",
        lambda *given: calls.append(given),
        raising=False,
    )
    assert main([verb, "--suite", suite, "--root", str(ROOT)]) == 0
    ((root, given, catalogue),) = calls
    assert root == ROOT
    assert given is catalogue.suite(suite)


@pytest.mark.parametrize(
    ("verb", "suites"),
    [("differences", "differences, outliers, settings, tuning"), ("comparison", "plus")],
)
def test_a_suite_without_the_report_is_told_which_have_it(capsys, verb, suites):
    assert main([verb, "--suite", "mini", "--root", str(ROOT)]) == 2
    message = capsys.readouterr().err
    assert f"suite 'mini' has no report '{verb}' (suites that have: {suites})" in message
    assert "'reports' in config/suites/mini.yaml" in message


def test_methods_side_by_side_need_no_comparison(capsys):
    assert main(["methods-table", "--suite", "eight", "--root", str(ROOT)]) == 2
    message = capsys.readouterr().err
    assert "suite 'eight' has no report 'methods' (suites that have: mini, paper, smoke)" in message
    assert "compare" not in message


def test_claims_are_written_for_the_suite(monkeypatch):
    calls = []
    monkeypatch.setattr("hqdm_bench.report.claims.write_claims", lambda *given: calls.append(given))
    assert main(["claims", "--suite", "mini", "--root", str(ROOT)]) == 0
    ((root, given, catalogue),) = calls
    assert root == ROOT
    assert given is catalogue.suite("mini")
