"""The table of machines: where its limits are from and when they were read; queues that it does not know."""

from __future__ import annotations

import re

import pytest

from common.cluster.sites import SITES, node_class, site
from common.errors import BadInputError

NOT_READ_AGAIN = {
    "frontier"
}  # its guide could not be had when the others were read; `checked` says so to users


@pytest.mark.parametrize(
    "name", [row.name for row in SITES.values() if any(one.hours for one in row.classes)]
)
def test_every_limit_has_a_source_and_the_day_it_was_read(name: str) -> None:
    row = SITES[name]
    assert len(row.source) > 10
    if name in NOT_READ_AGAIN:
        assert row.checked == "not read again"
    else:
        assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", row.checked)


def test_limits_that_were_not_read_again_are_named_one_by_one() -> None:
    assert {name for name, row in SITES.items() if row.checked == "not read again"} == NOT_READ_AGAIN


@pytest.mark.parametrize("name", ["slurm", "pbs", "sge"])
def test_at_a_site_without_a_table_every_queue_is_a_class(name: str) -> None:
    assert site(name).any_queue
    assert node_class(site(name), "gpu").name == "gpu"


@pytest.mark.parametrize("name", ["abci3", "frontier", "tsubame4"])
def test_elsewhere_the_table_is_all_there_is(name: str) -> None:
    assert not site(name).any_queue
    with pytest.raises(BadInputError, match="unknown node class"):
        node_class(site(name), "gpu")
