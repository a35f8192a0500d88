"""Search spaces as a sweep file writes them: what they hold, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from mhc_lab.errors import LabError
from mhc_lab.study.space import check_point, corners, grid, override, parse_space

CONDITIONAL = """
residual.t_max: {int: [1, 3], when: {residual.sinkhorn: [plain, warm]}}
residual.sinkhorn: {choices: [plain, warm, permutations]}
"""
CHAIN = """
c: {choices: [1, 2], when: {b: [x]}}
b: {choices: [x, y], when: {a: [true]}}
a: {choices: [true, false]}
"""


def parsed(text):
    return parse_space(yaml.safe_load(text), "f.yaml: space")


def one(text):
    (parameter,) = parsed(text)
    return parameter


def test_parameters_as_a_file_writes_them():
    whole = one("residual.t_max: {int: [1, 40], log: true}")
    assert (whole.key, whole.kind, whole.low, whole.high, whole.log) == ("residual.t_max", "int", 1, 40, True)
    real = one("residual.alpha_init: {float: [0, 1]}")
    assert (real.kind, real.low, real.high, real.log, real.points) == ("float", 0, 1, False, None)
    few = one("model.ffn: {choices: [2, 0.5, wide, true, null]}")
    assert (few.kind, few.choices) == ("choices", (2, 0.5, "wide", True, None))


def test_numbers_with_an_exponent_are_numbers_wherever_they_stand():
    for text in ("1e-3", "1E-3", "+1e-3", "1.e-3", ".1e-2", "1.0e-3"):
        assert one(f"lr: {{float: [{text}, 1], log: true}}").low == 0.001, text
    space = parsed("lr: {choices: [1e-3, 2e-3]}\nwarm: {float: [1e-3, 1e0], when: {lr: [2e-3]}}")
    assert space[0].choices == (0.001, 0.002)
    assert space[0].ordered
    assert dict(space[1].when) == {"lr": (0.002,)}
    assert check_point(yaml.safe_load("{lr: 2e-3, warm: 1e-1}"), space, "f") == {"lr": 0.002, "warm": 0.1}


def test_a_word_that_holds_a_number_stays_a_word():
    assert one("plan: {choices: [1e, e3, inf, '3']}").choices == ("1e", "e3", "inf", "3")


BAD = [
    ("[]", "must map settings to ranges"),
    ("{}", "must map settings to ranges"),
    ("residual.t_max", "must map settings to ranges"),
    ("a: [1, 40]", "a: must be a range such as"),
    ("a: 3", "a: must be a range such as"),
    ("a: {ints: [1, 2]}", "no key 'ints'; did you mean 'int'"),
    ("a: {int: [1, 2], step: 2}", "no key 'step'"),
    ("a: {}", "give one of int"),
    ("a: {log: true}", "give one of int"),
    ("a: {int: [1, 2], float: [1, 2]}", "give one of int"),
    ("a: {int: [1, 2], log: 1}", "log must be true or false"),
    ("a: {int: [0, 8], log: true}", "a log range must lie above 0, not start at 0"),
    ("a: {float: [-1e-3, 8], log: true}", "not start at -0.001"),
    ("a: {int: [1, 8], points: 0}", "points must be a whole number"),
    ("a: {int: [1, 8], points: true}", "points must be a whole number"),
    ("a: {float: [1, 8], points: 2.5}", "points must be a whole number"),
    ("a: {int: 8}", "int must be [low, high], two whole numbers"),
    ("a: {int: [8]}", "two whole numbers"),
    ("a: {int: [1, 2, 3]}", "two whole numbers"),
    ("a: {int: [1, 1e3]}", "two whole numbers"),
    ("a: {int: [1, 2.5]}", "two whole numbers"),
    ("a: {int: [true, 2]}", "two whole numbers"),
    ("a: {float: [low, 2]}", "float must be [low, high], two numbers"),
    ("a: {float: [0, .inf]}", "two numbers"),
    ("a: {float: [.nan, 1]}", "two numbers"),
    ("a: {float: [1, 1.0e+308]}", "two numbers"),
    ("a: {int: [1, 1" + 400 * "0" + "]}", "two whole numbers"),
    ("a: {float: [5.0e-324, 1], log: true}", "a log range must lie above 0"),
    ("a: {int: [40, 1]}", "the range [40, 1] is inverted"),
    ("a: {float: [1e-1, 1e-3]}", "the range [0.1, 0.001] is inverted"),
    ("a: {int: [4, 4]}", "the range [4, 4] is empty"),
    ("a: {choices: [1, 2], log: true}", "log belongs to int and float"),
    ("a: {choices: [1, 2], points: 2}", "points belongs to int and float"),
    ("a: {choices: []}", "choices is empty"),
    ("a: {choices: x}", "choices is empty"),
    ("a: {choices: [[1, 2], [3]]}", "choices must be words or numbers"),
    ("a: {choices: [1, 2, 1]}", "a choice stands twice"),
    ("a: {choices: [1e-3, 0.001]}", "a choice stands twice"),
    ("a: {int: [1, 2], when: b}", "when must map"),
    ("a: {int: [1, 2], when: {}}", "when must map"),
    ("a: {int: [1, 2], when: {b: x}}\nb: {choices: [x]}", "when must map"),
    ("a: {int: [1, 2], when: {b: []}}\nb: {choices: [x]}", "when must map"),
    ("a: {int: [1, 2], when: {b: [x]}}", "a: when names b, which is not in the space"),
    ("a: {int: [1, 2], when: {b: [1]}}\nb: {int: [1, 2]}", "when can only name a parameter with choices, not b"),
    ("a: {int: [1, 2], when: {b: [z]}}\nb: {choices: [x, y]}", "a: b is never z (x, y)"),
    ("a: {choices: [x], when: {a: [x]}}", "a wait for each other"),
    ("a: {choices: [x], when: {b: [x]}}\nb: {choices: [x], when: {a: [x]}}\nc: {int: [1, 2]}", "a, b wait for"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_what_is_wrong_in_a_file_is_said(text, says):
    with pytest.raises(LabError) as refused:
        parsed(text)
    line = str(refused.value)
    assert line.startswith("f.yaml: space: ")
    assert "\n" not in line
    assert says in line


def test_parents_come_before_what_hangs_on_them():
    assert [parameter.key for parameter in parsed(CONDITIONAL)] == ["residual.sinkhorn", "residual.t_max"]
    assert [parameter.key for parameter in parsed(CHAIN)] == ["a", "b", "c"]


def test_a_parameter_is_wanted_only_beside_the_values_it_names():
    kind, depth = parsed(CONDITIONAL)
    assert kind.wanted({})
    assert depth.wanted({kind.key: "warm"})
    assert not depth.wanted({kind.key: "permutations"})
    assert not depth.wanted({})


def test_a_grid_holds_each_combination_once_and_conditional_ones_where_they_are_wanted():
    assert grid(parsed(CONDITIONAL)) == [
        *({"residual.sinkhorn": name, "residual.t_max": t} for name in ("plain", "warm") for t in (1, 2, 3)),
        {"residual.sinkhorn": "permutations"},
    ]
    assert grid(parsed(CHAIN)) == [
        {"a": True, "b": "x", "c": 1},
        {"a": True, "b": "x", "c": 2},
        {"a": True, "b": "y"},
        {"a": False},
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: {int: [2, 5]}", [2, 3, 4, 5]),
        ("a: {int: [1, 9], points: 3}", [1, 5, 9]),
        ("a: {int: [1, 40], log: true, points: 3}", [1, 6, 40]),
        ("a: {int: [1, 3], log: true, points: 9}", [1, 2, 3]),  # the same whole number once
        ("a: {float: [0, 1], points: 5}", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("a: {float: [1e-3, 0.016], log: true, points: 5}", [0.001, 0.002, 0.004, 0.008, 0.016]),
        ("a: {float: [0.5, 1], points: 1}", [0.5]),
    ],
)
def test_the_values_of_a_grid(text, values):
    assert one(text).grid() == values


@pytest.mark.parametrize("text", ["a: {float: [0, 1]}", "a: {int: [1, 40], log: true}"])
def test_a_grid_of_a_range_without_points_is_refused(text):
    with pytest.raises(LabError, match="space: a: a grid needs points"):
        grid(parsed(text))


def test_corners_show_every_choice_and_every_edge():
    found = list(corners(parsed(CONDITIONAL + "width: {float: [0.5, 2]}\nsteps: {int: [10, 90]}")))
    assert {point["residual.sinkhorn"] for point in found} == {"plain", "warm", "permutations"}
    assert {point["residual.t_max"] for point in found if "residual.t_max" in point} == {1, 2, 3}  # few: all of them
    assert all(("residual.t_max" in point) == (point["residual.sinkhorn"] != "permutations") for point in found)
    for kind in ("plain", "warm", "permutations"):
        here = [point for point in found if point["residual.sinkhorn"] == kind]
        assert {point["width"] for point in here} == {0.5, 2}
        assert {point["steps"] for point in here} == {10, 90}
    assert len(found) == 2 * (1 + 2 + 1 + 1) + (1 + 1 + 1)


def test_corners_of_an_endless_space_end():
    many = "\n".join(f"k{i}: {{choices: [1, 2, 3]}}" for i in range(8))  # 6561 combinations
    assert len(list(corners(parsed(many)))) == 4096


def test_starting_points_lie_in_the_space():
    space = parsed(CONDITIONAL + "width: {float: [0.5, 2]}")
    point = {"residual.t_max": 3, "width": 2}
    assert check_point(point, space, "f") == point  # the sampler adds the rest
    for bad, says in (
        ([], "must map settings of the space to values"),
        ({}, "must map settings of the space to values"),
        ({"residual.tmax": 3}, "did you mean 'residual.t_max'"),
        ({"residual.t_max": 4}, r"residual.t_max=4 lies outside the space \(1 to 3\)"),
        ({"residual.t_max": 2.0}, "outside the space"),
        ({"residual.t_max": True}, "outside the space"),
        ({"width": "wide"}, "outside the space"),
        ({"width": 0.4999}, "outside the space"),
        ({"residual.sinkhorn": "newton"}, r"outside the space \(plain, warm, permutations\)"),
    ):
        with pytest.raises(LabError, match=says):
            check_point(bad, space, "f.yaml: enqueue")


def test_values_as_a_user_would_type_them():
    typed = [override("k", value) for value in (None, True, False, 3, 0.001, "plain")]
    assert typed == ["k=null", "k=true", "k=false", "k=3", "k=0.001", "k=plain"]
