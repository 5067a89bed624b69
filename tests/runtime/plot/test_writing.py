"""Which way texts run, and where their tokens stand."""

import pytest

from probegen.runtime.plot.writing import display_order, runs_right_to_left

ALEF, BET, GIMEL, ARABIC = "\u05d0", "\u05d1", "\u05d2", "\u0639\u0631\u0628"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["a", "b"], False),
        ([ALEF, "b"], True),
        (["[CLS]", "12", "!", ARABIC, "b"], True),
        (["12", "!"], False),
        ([], False),
    ],
)
def test_the_first_letter_tells(tokens, expected):
    assert runs_right_to_left(tokens) is expected


@pytest.mark.parametrize(
    ("line", "right_to_left", "shown"),
    [
        ("a b c", False, "a b c"),
        (f"{ALEF} {BET} {GIMEL}", True, f"{GIMEL} {BET} {ALEF}"),
        # A run of the other script keeps its own order.
        (f"{ALEF} keras io {BET} .", True, f". {BET} keras io {ALEF}"),
        (f"see {ALEF} {BET} , now", False, f"see {BET} {ALEF} , now"),
        # Numbers stand in the order of reading, and do not break a run of letters.
        (f"{ALEF} 12 , 34 {BET}", True, f"{BET} 34 , 12 {ALEF}"),
        (f"see {ALEF} 12 {BET}", False, f"see {BET} 12 {ALEF}"),
        ("see 12 a", False, "see 12 a"),
        (f"[CLS] {ALEF} ##{BET} [SEP]", True, f"[SEP] ##{BET} {ALEF} [CLS]"),
    ],
)
def test_order_in_a_line(line, right_to_left, shown):
    tokens = line.split()
    assert " ".join(tokens[i] for i in display_order(tokens, right_to_left)) == shown
