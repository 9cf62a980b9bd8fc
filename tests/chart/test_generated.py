"""Generated files are current."""

import pytest

from generate import FILES


@pytest.mark.parametrize("path", FILES, ids=str)
def test_is_current(helm, path):
    current, expected = path.read_text(), FILES[path](helm)
    assert current.splitlines() == expected.splitlines(), "tests/chart.sh CACHE_DIR --bless rewrites it"
    assert current == expected
