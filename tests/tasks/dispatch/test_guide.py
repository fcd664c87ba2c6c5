"""The guide to job shops says what happens: its table of errors is the errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gnnlab.tasks.dispatch import InstanceError, read_instance

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "job-shops.md"
ERRORS = {
    "no data": "# nothing\n\n",
    "header": "2\n",
    "expected 2 job lines, found 1": "2 2\n0 1 1 1\n",
    "unexpected data after job 2": "2 2\n0 1 1 1\n1 1 0 1\n0 1 1 1\n",
    "odd number of values": "1 2\n0 1 1\n",
    "expected 2 operations, found 1": "1 2\n0 1\n",
    "machine index out of range": "1 2\n0 1 5 1\n",
    "looks 1-based": "1 2\n1 1 2 1\n",
    "duplicate machine": "1 2\n0 1 0 1\n",
    "negative time": "1 2\n0 1 1 -1\n",
    "not an integer": "1 2\n0 1 1 3.5\n",
    "too large": "3000 3000\n0 1\n",
}


@pytest.fixture(scope="module")
def listed():
    """The messages of the table under "Errors"."""
    section = re.search(
        r"^## Errors\n(.*?)^## ", GUIDE.read_text("utf-8").replace("(modes)=\n", ""), re.M | re.S
    )
    return re.findall(r"\| `([^`]+)` \|$", section[1], re.M)


def test_table_of_the_guide_is_complete(listed):
    assert listed == list(ERRORS)


@pytest.mark.parametrize("words", ERRORS)
def test_bad_file_ends_as_the_guide_says(words, tmp_path):
    file = tmp_path / "bad.txt"
    file.write_text(ERRORS[words])
    with pytest.raises(InstanceError, match=re.escape(words)) as caught:
        read_instance(file)
    assert "bad.txt" in str(caught.value)


def test_time_of_zero_is_accepted(tmp_path):
    file = tmp_path / "zero.txt"
    file.write_text("1 2\n0 0 1 4\n")
    assert read_instance(file).has_zero_times
