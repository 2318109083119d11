"""The page of a suite: whole, escaped, closed to the network, with the numbers of the tables."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json, write_json
from hqdm_bench.report import write_methods, write_table
from hqdm_bench.report.page import page_inputs, write_suite_page
from hqdm_bench.report.page.channels import read_channels
from hqdm_bench.report.page.gallery import preview_cells
from hqdm_bench.report.page.tables import sort_number
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.table_text import MINUS, number, signed

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS = ["glance", "claims", "tables", "images", "outliers", "training", "making"]
VOID = {"meta", "input", "br", "wbr", "img", "link", "hr"}
DASH = "\N{EN DASH}"
NASTY = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@dataclass
class Node:
    """An element with its children, text among them."""

    name: str
    attributes: dict[str, str]
    children: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return re.sub(r"\s+", " ", "".join(parts)).strip()

    def all(self, name: str, **attributes: str) -> list[Node]:
        """Elements below, in order, whose attributes hold these words."""
        found = []
        for child in self.children:
            if isinstance(child, str):
                continue
            wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
            if child.name == name and all(
                value in child.attributes.get(key, "").split() for key, value in wanted.items()
            ):
                found.append(child)
            found += child.all(name, **attributes)
        return found

    def one(self, name: str, **attributes: str) -> Node:
        """The only one."""
        (found,) = self.all(name, **attributes)
        return found


class Tree(HTMLParser):
    """Refuses elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open = [Node("root", {})]
        self.feed(text)
        self.close()
        assert [node.name for node in self.open] == ["root"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Node(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def written(project: Any) -> Path:
    return write_suite_page(project.root, project.suite, project.catalogue)


def parsed(project: Any) -> Node:
    return Tree(written(project).read_text(encoding="utf-8")).open[0]


def embedded(page: Node) -> dict[str, Any]:
    return json.loads("".join(page.one("script", id="data").children))


def cells(table: Node) -> list[list[Node]]:
    (body,) = table.all("tbody")
    rows = body.all("tr")
    return [[n for n in row.children if not isinstance(n, str)] for row in rows]


def test_every_section_is_there_in_order(full: Any) -> None:
    page = parsed(full)
    main = page.one("main")
    sections = [n for n in main.children if not isinstance(n, str) and n.name == "section"]
    assert [section.attributes["id"] for section in sections] == SECTIONS
    links = [link.attributes["href"] for link in page.one("nav").all("a")]
    assert links == [f"#{name}" for name in SECTIONS]
    assert len(page.all("h1")) == 1
    ids = [node.attributes["id"] for name in ("section", "article", "select", "details", "input")
           for node in page.all(name) if "id" in node.attributes]  # fmt: skip
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_elsewhere(full: Any) -> None:
    text = written(full).read_text(encoding="utf-8")
    page = Tree(text).open[0]
    assert not page.all("link") + page.all("img") + page.all("iframe")
    assert not [script for script in page.all("script") if "src" in script.attributes]
    addresses = re.findall(r"url\(([^)]{0,30})", text)
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    assert "@import" not in text
    (policy,) = [m for m in page.all("meta") if m.attributes.get("http-equiv")]
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_the_same_results_give_the_same_bytes(full: Any) -> None:
    first = written(full).read_bytes()
    assert written(full).read_bytes() == first
    folder = full.layout.page("tiny").parent
    assert [path.name for path in folder.glob("*.html")] == ["index.html"]


def test_titles_and_sentences_are_text(full: Any) -> None:
    methods = full.catalogue.methods
    methods["hqdm"] = replace(methods["hqdm"], title=NASTY)
    path = full.layout.claims("tiny", "json")
    content = read_json(path)
    content["claims"][0] |= {"statement": NASTY, "rule": "</script>" + NASTY, "id": NASTY}
    write_json(path, content)
    page = parsed(full)
    assert len(page.all("script")) == 2
    assert not page.all("img")
    assert not [n for n in page.all("details") + page.all("span") if "onerror" in n.attributes]
    assert NASTY in page.one("section", id="claims").text
    assert NASTY in {entry["title"] for entry in embedded(page)["gallery"]}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("table", [1, 4])
def test_tables_hold_the_numbers_of_their_csv(full: Any, table: int) -> None:
    path, *_ = write_table(table, full.root, full.suite, full.catalogue)
    article = parsed(full).one("article", id=f"table{table}-imagenet")
    values, *_ = article.all("table", class_="sortable")
    shown = [[cell.text for cell in row] for row in cells(values)]
    titles = {name: spec.title for name, spec in full.catalogue.methods.items()}
    checked = 0
    for row in rows_of(path):
        if row["section"] != "values" or not row["measured"]:
            continue
        text = number(float(row["measured"]), quantity(row["metric"]).digits("mini-classifier"))
        method, bits = titles[row["method"]], row["bits"].lstrip("w").replace("a", "/")
        own = {method, bits} | ({row["order"]} if row["order"] else set())
        (found,) = [line for line in shown if own <= set(line[:3])]
        assert any(cell.split(" ")[0] == text for cell in found[3:]), (row, found)
        checked += 1
    assert checked >= 14


def test_methods_stand_side_by_side_where_the_suite_asks_for_it(full: Any) -> None:
    assert "methods-imagenet" not in written(full).read_text(encoding="utf-8")
    full.suite = replace(full.suite, reports=("methods",))
    write_methods(full.root, full.suite, full.catalogue)
    article = parsed(full).one("article", id="methods-imagenet")
    ranked = article.one("table", class_="sortable")
    rows = [[cell.text for cell in row] for row in cells(ranked)]
    read = rows_of(full.layout.report("tiny", "methods", "csv"))
    titles = {name: spec.title for name, spec in full.catalogue.methods.items()}
    students = [row for row in read if row["metric"] == "noise_error"]
    assert [row[1] for row in rows[1:]] == [titles[row["method"]] for row in students]
    for line, row in zip(rows[1:], students, strict=True):
        first, last = row["rank_first"], row["rank_last"]
        assert line[3] == (first if first == last else f"{first} to {last}")
    costs = parsed(full).one("article", id="method-costs-imagenet")
    assert len(cells(costs.one("table", class_="sortable"))) == len(students)
    assert "Cannot show: That two methods are equal" in article.text


def test_paired_differences_hold_the_numbers_of_their_csv(full: Any) -> None:
    path, *_ = write_table(1, full.root, full.suite, full.catalogue)
    article = parsed(full).one("article", id="table1-imagenet")
    matrix = article.one("table", class_="matrix")
    lines = {line[1].text: line for line in cells(matrix)}
    paired = [row for row in rows_of(path) if row["section"] == "paired"]
    keys = list(dict.fromkeys(row["metric"] for row in paired))
    for row in paired:
        bits = row["bits"].lstrip("w").replace("a", "/")
        cell = lines[bits][3 + keys.index(row["metric"])]
        assert float(cell.attributes["data-value"]) == float(row["measured"])
        digits = quantity(row["metric"]).digits("mini-classifier")
        assert cell.one("b").text == signed(float(row["measured"]), digits)
        assert cell.text.endswith(row["verdict"])
    assert len(paired) == 2 * len(keys)


def test_the_map_says_who_is_ahead(full: Any) -> None:
    page = parsed(full)
    rows = page.one("table", class_="map").all("tr")[1:]
    marks = [[cell.text for cell in row.all("td")] for row in rows]
    # FID of seeds 0 to 2: 1, 2, 3 against 0.5, 1.4, 2.6; one seed at W8A3.
    assert [row.all("th")[-1].text for row in rows] == ["4/4", "8/3"]
    assert marks[0][2] == "▲"
    assert set(marks[1][1:]) == {"·"}


def test_images_are_those_of_the_shards(full: Any) -> None:
    text = written(full).read_text(encoding="utf-8")
    sprites = re.findall(
        r"\.sprite-(\d+) \{ background-image: url\(data:image/png;base64,([^)]+)\)", text
    )
    shown = preview_cells(full.suite)
    assert [int(number) for number, _ in sprites] == list(range(len(shown)))
    for (_, code), cell in zip(sprites, shown, strict=True):
        row = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
        shards = [np.load(full.layout.shard(cell, shard))["arr_0"] for shard in range(2)]
        np.testing.assert_array_equal(row, np.concatenate([*shards[0], *shards[1]], axis=1))
    data = embedded(Tree(text).open[0])["gallery"]
    assert [(one["method"], one["bits"]) for one in data] == [
        (cell.method, cell.bits.label) for cell in shown
    ]
    facts = dict(data[1]["facts"])
    assert facts["FID-like ↓"] == "1.000"  # of seed 0, whose images are shown


def test_the_first_seed_of_every_method_and_width_is_shown(full: Any) -> None:
    shown = [(cell.method, str(cell.bits), cell.seed) for cell in preview_cells(full.suite)]
    assert shown == [
        ("fp", "w32a32", 0),
        ("efficientdm", "w4a4", 0),
        ("hqdm", "w4a4", 0),
        ("efficientdm", "w8a3", 0),
        ("hqdm", "w8a3", 0),
        ("hqdm-k3", "w4a4", 0),
    ]


def test_a_small_budget_shows_fewer_images(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(full).read_text(encoding="utf-8")
    assert 'data-count="8"' in whole
    monkeypatch.setattr("hqdm_bench.report.page.gallery.BUDGET", 1)
    assert 'data-count="1"' in written(full).read_text(encoding="utf-8")


def test_photographs_are_stored_as_jpeg(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hqdm_bench.report.page.gallery.SMALL", 4)
    text = written(full).read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in text
    assert "data:image/png" not in text


def test_channel_maxima_are_those_of_the_record(full: Any) -> None:
    (model,) = embedded(parsed(full))["channels"]
    assert model["steps"] == [[0, 1], [9, 451]]
    before, after = model["layers"][0]["steps"][1]
    assert before["values"][7] == 12.0
    assert before["channel"] == 7
    assert after["values"] == [2.0] * 64
    assert after["ratio"] == "1.0"
    (record,) = read_channels(full.root, full.suite)
    exact = np.asarray(record.layers[0].steps[1][0].values)
    assert float(before["ratio"]) == pytest.approx(12.0 / np.median(exact), abs=0.06)


def test_claims_are_counted_and_explained(full: Any) -> None:
    page = parsed(full)
    section = page.one("section", id="claims")
    shown = section.all("details", class_="claim")
    verdicts = [one.attributes["data-verdict"] for one in shown]
    assert verdicts == ["reproduced", "open", "open", "absent"]
    texts = [one.text.replace(MINUS, "-") for one in shown]
    assert "-1.40 [-1.80, -1.00] FID-like" in texts[0]
    assert "0.25 [-0.50, 1.00]" in texts[1]
    assert "the interval lies below zero" in shown[0].text
    buttons = [button.text for button in section.one("div", class_="filter").all("button")]
    assert buttons == ["all 4", "✓ reproduced 1", "? inconclusive 2", f"{DASH} not run 1"]
    legend = page.one("section", id="glance").all("ul", class_="legend")[0]
    counts = [item.text for item in legend.all("li")]
    assert counts == ["1 ✓ reproduced", "2 ? inconclusive", f"1 {DASH} not run"]


def test_a_claim_of_several_comparisons_lists_them(full: Any) -> None:
    path = full.layout.claims("tiny", "json")
    content = read_json(path)
    part = {"label": "W4A4, FID", "effect": 0.0321, "unit": "gain", "interval": [0.01, 0.05]}
    part |= {"interval_kind": "95 % over 3 training seeds", "word": "supported"}
    missing = part | {"label": "W8A3, FID", "effect": None, "interval": None, "word": "not run"}
    content["claims"][0] |= {
        "parts": [part, missing],
        "result": "1 of 2 comparisons for it.",
        "arithmetic_text": "Table 1 says the same.",
        "evidence": [f"results/tiny/{number}.json" for number in range(9)],
    }
    write_json(path, content)
    first, *_ = parsed(full).one("section", id="claims").all("details", class_="claim")
    assert first.one("span", class_="size").text == "1 of 2 comparisons for it."
    rows = [[cell.text for cell in row] for row in cells(first.one("table", class_="parts"))]
    assert rows == [
        ["W4A4, FID", "0.0321 [0.0100, 0.0500] gain (over 3 training seeds)", "supported"],
        ["W8A3, FID", "", "not run"],
    ]
    assert "follows. Table 1 says the same." in first.text
    assert "results/tiny/3.json and 5 more, listed in claims.json" in first.text


def test_a_suite_without_claims_says_so(full: Any) -> None:
    full.layout.claims("tiny", "json").unlink()
    section = parsed(full).one("section", id="claims")
    assert "has no claims.json" in section.text
    assert not section.all("details")


def test_claims_of_another_form_are_refused(full: Any) -> None:
    path = full.layout.claims("tiny", "json")
    content = read_json(path)
    content["claims"][1]["verdict"] = "confirmed"
    write_json(path, content)
    with pytest.raises(BenchError, match="claim 'b' has verdict 'confirmed'; known: reproduced"):
        written(full)
    write_json(path, {"claims": [{"id": "a"}]})
    with pytest.raises(BenchError, match=r"claims\.json holds no claims"):
        written(full)


def test_results_without_previews_show_no_slider(full: Any) -> None:
    for cell in preview_cells(full.suite):
        full.layout.preview(cell).unlink()
    section = parsed(full).one("section", id="images")
    assert section.text.endswith("No images are kept with these results.")


def test_a_damaged_preview_is_named(full: Any) -> None:
    path = full.layout.preview(preview_cells(full.suite)[0])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BenchError, match=r"preview\.png is not a whole png"):
        written(full)


def test_inputs_are_what_a_page_reads(full: Any) -> None:
    inputs = page_inputs(full.root, full.suite)
    assert all(path.is_file() for path in inputs if path.name != "replicates.safetensors")
    students = [cell for cell in full.suite.cells if cell.method != "fp"]
    assert len(set(inputs)) == len(inputs)
    assert {full.layout.history(cell) for cell in students} < set(inputs)
    assert full.layout.outliers("tiny", "imagenet") in inputs
    # Shards may have been deleted.
    for path in full.root.rglob("shard*.npz"):
        path.unlink()
    assert parsed(full).one("section", id="images").all("figure")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9.332 ± 0.080", 9.332),
        ("-0.40 ± 0.75", -0.4),
        ("+14.1", 14.1),
        ("\N{MULTIPLICATION SIGN}0.910 [0.802, 1.030]", 0.91),
        ("-1.4 [-1.8, -1.0]", -1.4),
        ("3", 3.0),
        ("4/4", None),
        ("32/32", None),
        ("—", None),
        ("", None),
        ("inconclusive", None),
    ],
)
def test_cells_are_sorted_by_the_number_they_begin_with(text: str, value: float | None) -> None:
    assert sort_number(text.replace("-", MINUS)) == value
