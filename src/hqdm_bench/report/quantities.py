"""What the tables hold: symbol, direction, unit and digits of every reported quantity."""

from dataclasses import dataclass

from hqdm_bench.common.errors import BenchError

__all__ = ["DIAGNOSTICS", "EXTRAS", "METRICS", "MINI_EXTRACTOR", "Quantity", "quantity"]

MINI_EXTRACTOR = "mini-classifier"


@dataclass(frozen=True)
class Quantity:
    """A reported number.

    Attributes:
        key: name in metrics files and csv tables.
        symbol: as the paper prints it.
        higher_is_better: direction of the arrow.
        unit: shown behind the symbol, or empty.
        scale: stored value times this is the shown one (100 for fractions shown in percent).
        decimals: digits under Inception features (and of everything that has none).
        mini_decimals: digits under the features of the mini classifier, whose scale is smaller.
        feature_based: whether its value depends on the feature extractor.
        ratio: positive and skewed over seeds, so that studies compare it by ratios and average its
            logarithm.
    """

    key: str
    symbol: str
    higher_is_better: bool
    unit: str = ""
    scale: float = 1.0
    decimals: int = 2
    mini_decimals: int = 3
    feature_based: bool = True
    ratio: bool = False

    def head(self, extractor: str) -> str:
        """Column head such as ``FID ↓``; features that are not Inception's are named as such."""
        return " ".join(self.head_lines(extractor))

    def head_lines(self, extractor: str) -> tuple[str, str]:
        """The head as (symbol, arrow and remarks), for columns that have to be narrow.

        Precision and recall keep their symbols, being fractions on any features.
        """
        mini = self.feature_based and extractor == MINI_EXTRACTOR
        if mini and self.scale == 1.0:
            return f"{self.symbol}-like", self._arrow()
        return self.symbol, self._arrow("mini features" if mini else "")

    @property
    def paper_head(self) -> str:
        """Column head as in the paper."""
        return f"{self.symbol} {self._arrow()}"

    def _arrow(self, remark: str = "") -> str:
        behind = ", ".join(filter(None, (self.unit, remark)))
        arrow = "↑" if self.higher_is_better else "↓"
        return f"{arrow} ({behind})" if behind else arrow

    def digits(self, extractor: str) -> int:
        """Decimals to print."""
        mini = self.feature_based and extractor == MINI_EXTRACTOR
        return self.mini_decimals if mini else self.decimals


METRICS = {
    entry.key: entry
    for entry in (
        Quantity("is", "IS", higher_is_better=True),
        Quantity("fid", "FID", higher_is_better=False),
        Quantity("sfid", "sFID", higher_is_better=False),
        Quantity(
            "precision", "Precision", higher_is_better=True, unit="%", scale=100.0, mini_decimals=1
        ),
        Quantity("recall", "Recall", higher_is_better=True, unit="%", scale=100.0, mini_decimals=1),
    )
}

# Metrics the paper's tables do not have; our csv tables do.
EXTRAS = {
    entry.key: entry
    for entry in (
        Quantity("is_shuffled", "shuffled IS", higher_is_better=True),
        Quantity("kid", "KID", higher_is_better=False, decimals=5, mini_decimals=5),
        Quantity("clean_fid", "clean-FID", higher_is_better=False),
    )
}

DIAGNOSTICS = {
    entry.key: entry
    for entry in (
        Quantity(
            "noise_error",
            "Noise error",
            higher_is_better=False,
            decimals=5,
            feature_based=False,
            ratio=True,
        ),
        Quantity(
            "psnr_median", "PSNR to FP", higher_is_better=True, unit="dB", feature_based=False
        ),
        Quantity(
            "latent_mse_median",
            "Latent MSE",
            higher_is_better=False,
            decimals=4,
            feature_based=False,
        ),
    )
}

# Paired errors beside those of the tables.
PAIRED = {
    entry.key: entry
    for entry in (
        Quantity(
            "ssim_median", "SSIM to FP", higher_is_better=True, decimals=4, feature_based=False
        ),
    )
}


def quantity(key: str) -> Quantity:
    """A quantity by name.

    Raises:
        BenchError: no quantity of that name.
    """
    known_ones = METRICS | EXTRAS | DIAGNOSTICS | PAIRED
    entry = known_ones.get(key)
    if entry is None:
        known = ", ".join(known_ones)
        raise BenchError(f"unknown quantity '{key}'; known: {known}")
    return entry
