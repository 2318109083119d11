import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate import nearest, neighbours
from hqdm_bench.evaluate.distance_blocks import centred, direct_distances, pair_blocks
from hqdm_bench.evaluate.neighbours import covered, precision_recall, squared_radii


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def naive(generated, real, k):
    """The definition, pair by pair, in float64."""

    def squared(a, b):
        return (a.double()[:, None] - b.double()[None]).square().sum(2)

    def radii(points):
        return squared(points, points).sort(1).values[:, k]

    precision = (squared(generated, real) <= radii(real)).any(1).double().mean().item()
    recall = (squared(real, generated) <= radii(generated)).any(1).double().mean().item()
    return precision, recall


def test_stored_oracle_values(arrays, expected):
    generated, real = arrays["gen"], arrays["ref"]
    stored = expected["precision_recall_k3"]
    found = precision_recall(generated, real, 3)
    assert found == pytest.approx(stored["exact"], rel=0, abs=stored["abs_tol_exact"])
    assert found == pytest.approx(
        stored["adm_fp16_distances"], rel=0, abs=stored["abs_tol_vs_adm_fp16"]
    )
    for k in (2, 5):
        assert precision_recall(generated, real, k) == pytest.approx(
            expected["precision_recall_other_k"][f"k{k}"], abs=1e-6
        )


def test_stored_ties(arrays, expected):
    found = precision_recall(arrays["tie_gen"], arrays["tie_ref"], 3)
    assert found == pytest.approx(expected["precision_recall_ties_k3"]["numpy64"], abs=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_torch_fidelity_on_the_same_features(k):
    generated, real = normal(300, 8), 1.3 * normal(200, 8, seed=1)
    oracle = calculate_precision_recall_full(generated, real, k)
    assert precision_recall(generated, real, k) == pytest.approx(oracle, abs=1e-6)


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1000])
def test_blocks_do_not_change_the_result(arrays, block):
    generated, real = arrays["tie_gen"][:40], arrays["tie_ref"][:50]
    assert precision_recall(generated, real, 3, block) == precision_recall(generated, real, 3)
    assert torch.equal(squared_radii(real, 3, block), squared_radii(real, 3))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("block", [5, 2048])
def test_duplicates_and_borders_far_from_the_origin(offset, block):
    """Products of matrices are off by more than the gaps here; the border must still be exact."""
    real = (0.1 * normal(40, 6).repeat(5, 1) + offset).float()
    generated = torch.cat([real[:20], (0.1 * normal(40, 6, seed=1) + offset).float()])
    assert tuple(precision_recall(generated, real, 3, block)) == naive(generated, real, 3)
    # five copies of a point: its third neighbour is itself again
    assert torch.equal(squared_radii(real, 3, block), torch.zeros(200, dtype=torch.float64))
    inside = covered(generated, real, torch.zeros(200, dtype=torch.float64), block)
    assert inside.tolist() == [True] * 20 + [False] * 40


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_the_neighbour_that_sets_a_radius_lies_in_the_ball(block):
    """Its distance must be the very same number in both passes, wherever it falls in a block."""
    points = normal(60, 6).double() * 1.1 + 1000.1  # float64: products round
    radii = squared_radii(points, 3, block)
    third = torch.cdist(points.double(), points.double()).argsort(1)[:, 3]
    for i in range(60):
        assert covered(points[third[i]][None], points[i][None], radii[i][None], block).all()
        assert not covered(points[third[i]][None], points[i][None], radii[i][None] - 1e-9).any()


def test_radii_on_a_line():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert squared_radii(line, 1).tolist() == [1, 1, 4, 16]
    assert squared_radii(line, 3).tolist() == [49, 36, 16, 49]


def test_the_border_belongs_to_the_ball():
    radii = torch.ones(1, dtype=torch.float64)
    points = torch.tensor([[1.0, 0.0], [1.0 + 1e-6, 0.0], [-1.0, 0.0], [0.8, 0.8]])
    assert covered(points, torch.zeros(1, 2), radii).tolist() == [True, False, True, False]


def exact_distances(a, b):
    pairs = torch.cartesian_prod(torch.arange(len(a)), torch.arange(len(b))).T
    return direct_distances(a, b, *pairs).view(len(a), len(b))


def integers(highest, *shape):
    return torch.randint(highest, shape, generator=torch.Generator().manual_seed(2))


# Sets in which single precision, or any product of matrices, decides little or nothing.
HARD = {
    "wide": (normal(60, 2048), 1.02 * normal(70, 2048, 1)),
    "far": (normal(90, 16) + 1000, normal(80, 16, 1) + 1000),
    "collapsed": (normal(1, 32) + 1e-6 * normal(90, 32, 1), normal(80, 32, 2)),
    "close": (100 + 1e-5 * normal(90, 16), 100 + 1e-5 * normal(80, 16, 1)),
    "closer": (5 + 1e-9 * normal(90, 16).double(), 5 + 1e-9 * normal(80, 16, 1).double()),
    "identical": (torch.ones(90, 8), torch.ones(80, 8)),
    "lattice": (integers(3, 150, 4).float(), integers(3, 90, 4).float()),
    "far lattice": (0.1 * integers(2, 90, 7) + 1e3, 0.1 * integers(2, 80, 7) + 1e3),
    "outliers": (
        torch.cat([normal(60, 8), 1e6 * normal(3, 8)]),
        torch.cat([normal(50, 8, 1), 1e6 * normal(2, 8, 1)]),
    ),
    "tiny": (1e-30 * normal(60, 8), 1e-30 * normal(50, 8, 1)),
}


@pytest.mark.parametrize("block", [13, 2048])
@pytest.mark.parametrize("name", HARD)
def test_every_pair_measured_directly_gives_the_same(name, block):
    generated, real = HARD[name]
    own = exact_distances(generated, generated).fill_diagonal_(torch.inf).kthvalue(3, 1).values
    other = exact_distances(real, real).fill_diagonal_(torch.inf).kthvalue(3, 1).values
    assert torch.equal(squared_radii(generated, 3, block), own)
    inside = (exact_distances(generated, real) <= other).any(1)
    around = (exact_distances(real, generated) <= own).any(1)
    found = precision_recall(generated, real, 3, block)
    assert tuple(found) == (inside.double().mean(), around.double().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "offset"), [(3, 0.0), (64, 5.0), (2048, 1.0)])
def test_distances_are_within_their_bound(dtype, d, offset):
    points = normal(40, d) * torch.linspace(0.01, 3, 40)[:, None] + offset
    (every,) = centred(points, dtype=dtype)
    exact = exact_distances(points, points) * every.scale**2
    bound = every.margin(every.norms, float(every.norms.max()))
    assert every.norms.max() <= 1
    for part in pair_blocks(every, block=16):
        error = (part.squared.double() - exact[part.rows, part.columns]).abs()
        assert (error <= bound[part.rows, None]).all()
    assert bound.max() < (1e-3 if dtype == torch.float32 else 1e-11)


def test_few_pairs_are_measured_twice(monkeypatch):
    """Pool-like features: about one direct distance a point, or there would be no speed."""
    measured = []

    def counted(left, right, row, column):
        measured.append(len(row))
        return direct_distances(left, right, row, column)

    for module in (nearest, neighbours):
        monkeypatch.setattr(module, "direct_distances", counted)
    generated, real = normal(800, 512).relu(), normal(600, 512, 1).relu()
    precision_recall(generated, real)
    assert 1400 <= sum(measured) < 2 * 1400


def test_mode_collapse_has_high_precision_and_low_recall():
    centres = 20 * torch.eye(10)
    real = (centres[:, None] + normal(500, 10).view(10, 50, 10)).flatten(0, 1)
    collapsed = centres[0] + normal(200, 10, seed=1)
    precision, recall = precision_recall(collapsed, real, 3)
    assert precision > 0.7
    assert recall <= 0.1  # one mode of ten
    swapped = precision_recall(real, collapsed, 3)
    assert tuple(swapped) == (recall, precision)


def test_equal_and_disjoint_sets(arrays):
    points = arrays["ref"][:200]
    assert tuple(precision_recall(points, points)) == (1.0, 1.0)
    assert tuple(precision_recall(points + 1000, points)) == (0.0, 0.0)


@pytest.mark.parametrize(("k", "n", "m"), [(0, 10, 10), (-1, 10, 10), (10, 10, 20), (10, 20, 10)])
def test_k_must_leave_neighbours(k, n, m):
    with pytest.raises(BenchError, match="need at least"):
        precision_recall(normal(n, 2), normal(m, 2), k)


def test_dimensions_must_agree():
    with pytest.raises(BenchError, match="same extractor"):
        precision_recall(normal(10, 2), normal(10, 3))


@pytest.mark.parametrize("block", [0, -1])
def test_a_block_has_rows(block):
    """A negative one went through no pair and said that nothing is covered."""
    with pytest.raises(BenchError, match="take at least 1"):
        precision_recall(normal(10, 2), normal(10, 2), 3, block)
