"""Tables read from their source are the tables that the modules have."""

import pytest

from fcnet import functional, optim
from fcnet.choices import rows
from fcnet.nn import init
from fcnet.training import fullbatch

TABLES = {
    ("optim/rules.py", "RULES"): optim.RULES,
    ("functional/activation.py", "ACTIVATIONS"): functional.ACTIVATIONS,
    ("functional/loss.py", "LOSSES"): functional.LOSSES,
    ("nn/init.py", "SCHEMES"): init.SCHEMES,
    ("training/fullbatch.py", "FULL_BATCH"): fullbatch.FULL_BATCH,
}


@pytest.mark.parametrize("where", TABLES, ids=lambda where: where[1])
def test_names_and_values_are_those_of_the_table(where):
    table, found = TABLES[where], rows(*where)
    assert list(found) == list(table)
    for name, row in found.items():
        assert {key: getattr(table[name], key) for key in row} == row


def test_what_the_command_line_says_is_read():
    assert all("learning_rate" in row for row in rows("optim/rules.py", "RULES").values())
    assert all("init" in row for row in rows("functional/activation.py", "ACTIVATIONS").values())
    assert all("targets" in row for row in rows("functional/loss.py", "LOSSES").values())


def test_a_table_that_is_not_there():
    with pytest.raises(LookupError, match="expected a dict NOTHING"):
        rows("nn/init.py", "NOTHING")
