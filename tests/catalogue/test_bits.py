import pytest

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError


@pytest.mark.parametrize("text", ["w2a3", "w3a4", "w8a8", "w4a4", "w32a32"])
def test_round_trip(text):
    assert str(Bits.parse(text)) == text
    assert Bits.parse(text.upper()).label == text.upper()


@pytest.mark.parametrize("text", ["w1a4", "w4a2", "w9a8", "w4a9", "w32a8", "w4a32"])
def test_unsupported_widths_name_the_allowed_ones(text):
    with pytest.raises(BenchError, match=f"{text} is not supported; weights take 2 to 8"):
        Bits.parse(text)


@pytest.mark.parametrize("text", ["4/4", "w4", "a4w4", "w4a4x", ""])
def test_malformed_text(text):
    with pytest.raises(BenchError, match="not of the form w4a4"):
        Bits.parse(text)
