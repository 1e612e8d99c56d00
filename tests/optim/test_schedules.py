"""Learning-rate schedules against their definitions, spelled out epoch by epoch, and against PyTorch's."""

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest

from fcnet.optim.schedules import (
    SCHEDULES,
    constant,
    cosine,
    exponential,
    followed,
    inverse,
    make_schedule,
    step,
    warmup,
)


def per_step(name, config=None, total=100):
    return make_schedule(name, {"per": "step", **(config or {})}, total // 5, 5)


def curve(schedule, length=12):
    return [schedule(t) for t in range(length)]


def test_constant():
    assert curve(constant) == [1] * 12


def test_step_falls_by_its_factor_every_so_often():
    assert curve(partial(step, every=3, factor=0.5), 10) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    assert curve(partial(step, every=2), 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_exponential_multiplies_by_the_same_each_time():
    got = curve(partial(exponential, decay=0.3))
    assert got[0] == 1
    np.testing.assert_allclose(np.divide(got[1:], got[:-1]), 0.7408182206817179)  # e^-0.3


def test_inverse_is_linear_upside_down():
    got = curve(partial(inverse, decay=0.5))
    np.testing.assert_allclose([1 / value for value in got], [1 + 0.5 * t for t in range(12)])
    assert got[2] == 0.5


def test_cosine_is_half_a_wave_then_stays_down():
    got = curve(partial(cosine, total=8, floor=0.2))
    assert got[0] == 1
    assert got[4] == pytest.approx(0.6)
    assert got[2] == pytest.approx(0.6 + 0.4 * math.sqrt(0.5))
    assert got[6] == pytest.approx(0.6 - 0.4 * math.sqrt(0.5))
    assert got[8:] == pytest.approx([0.2] * 4)


def test_warmup_rises_in_a_line_to_1():
    assert curve(partial(warmup, warmup=4), 7) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    assert curve(partial(warmup, warmup=1), 3) == pytest.approx([0.5, 1, 1])


def test_one_after_another():
    both = partial(followed, first=partial(warmup, warmup=3), length=3, then=partial(step, every=2, factor=0.5))
    assert curve(both, 8) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.5, 0.5, 0.25])
    assert curve(per_step("step", {"warmup": 3, "every": 2, "factor": 0.5}), 8) == curve(both, 8)
    early = partial(followed, first=partial(warmup, warmup=4), length=2, then=partial(step, every=1, factor=0.5))
    assert curve(early, 5) == pytest.approx([0.2, 0.4, 1, 0.5, 0.25])


CONFIGS = {
    "constant": {},
    "step": {"every": 3, "factor": 0.5},
    "exponential": {"decay": 0.1},
    "inverse": {"decay": 0.1},
    "cosine": {"total": 9, "floor": 0.1},
    "flat_cosine": {"total": 8},
    "warmup": {"warmup": 4},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_by_name(name):
    made = per_step(name, CONFIGS[name])
    assert curve(made) == curve(partial(SCHEDULES[name], **CONFIGS[name]))
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert curve(copied) == curve(made)


def test_flat_cosine_falls_in_its_second_half():
    middle = 0.02 + 0.98 / 2
    half = partial(SCHEDULES["flat_cosine"], total=8)
    assert [half(t) for t in (0, 4, 6, 8, 20)] == pytest.approx([1, 1, middle, 0.02, 0.02])


def test_cosine_ends_with_the_training():
    assert curve(per_step("cosine", total=10)) == curve(partial(cosine, total=10))
    after = per_step("cosine", {"warmup": 4, "floor": 0.5}, total=10)
    assert curve(after) == pytest.approx([0.2, 0.4, 0.6, 0.8, *curve(partial(cosine, total=6, floor=0.5), 8)])
    assert per_step("cosine", {"warmup": 10}, total=10)(10) == 1  # nothing is left of it


def test_per_epoch_unless_told_otherwise():
    for config in ({"warmup": 1}, {"warmup": 1, "per": "epoch"}):
        epochs = make_schedule("cosine", config, 4, 3)
        assert curve(epochs) == pytest.approx([0.5] * 3 + [1] * 3 + [0.75] * 3 + [0.25] * 3)
        assert curve(copy.deepcopy(epochs)) == curve(pickle.loads(pickle.dumps(epochs))) == curve(epochs)
    assert curve(make_schedule("step", {"every": 1, "factor": 0.5}, 9, 4), 9) == [1] * 4 + [0.5] * 4 + [0.25]


@pytest.mark.parametrize("name", [*SCHEDULES, "warmup and cosine"])
def test_it_is_torchs(name):
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler
    tensor = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([tensor], 0.8)

    def rising(length):
        return schedulers.LinearLR(optimizer, start_factor=1 / (length + 1), total_iters=length)

    theirs = {
        "constant": lambda: schedulers.ConstantLR(optimizer, factor=1, total_iters=3),
        "step": lambda: schedulers.StepLR(optimizer, step_size=3, gamma=0.5),
        "exponential": lambda: schedulers.ExponentialLR(optimizer, gamma=math.exp(-0.1)),
        "inverse": lambda: schedulers.LambdaLR(optimizer, lambda t: 10 / (10 + t)),
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, T_max=9, eta_min=0.08),
        "warmup": lambda: rising(4),
        "warmup and cosine": lambda: schedulers.SequentialLR(
            optimizer, [rising(3), schedulers.CosineAnnealingLR(optimizer, T_max=9)], milestones=[3]
        ),
    }[name]()
    ours = per_step(name.split()[-1], {"warmup": 3, "total": 9} if " " in name else CONFIGS[name])
    for t in range(10):  # at 2 T_max, PyTorch's cosine rises again
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.8 * ours(t), rel=1e-9, abs=1e-12), t
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        (
            "cosin",
            None,
            "schedule: expected one of constant, step, exponential, inverse, cosine, flat_cosine, warmup; got 'cosin'",
        ),
        (
            "cosine",
            {"totl": 1},
            "schedule_config['totl']: expected what schedule='cosine' takes, total, floor, warmup, per; got 'totl'",
        ),
        (
            "constant",
            {"every": 1},
            "schedule_config['every']: expected what schedule='constant' takes, warmup, per; got",
        ),
        ("step", None, "schedule_config['every']: expected a number with schedule='step', such as 5, got none"),
        ("inverse", {}, "schedule_config['decay']: expected a number with schedule='inverse', such as 0.05, got"),
        ("warmup", {}, "schedule_config['warmup']: expected a number with schedule='warmup', such as 5, got"),
        ("step", {"every": 0}, "schedule_config['every']: expected 1 or more, got 0"),
        ("step", {"every": 2.5}, "schedule_config['every']: expected an integer, got 2.5"),
        ("step", {"every": 2, "factor": 2}, "schedule_config['factor']: expected 0 <= factor <= 1, got 2.0"),
        ("exponential", {"decay": -1}, "schedule_config['decay']: expected 0 or more, got -1.0"),
        ("cosine", {"floor": 1.5}, "schedule_config['floor']: expected 0 <= floor <= 1, got 1.5"),
        ("cosine", {"warmup": "x"}, "schedule_config['warmup']: expected an integer, got 'x'"),
        ("cosine", {"per": "week"}, "schedule_config['per']: expected one of epoch, step; got 'week'"),
        ("cosine", [5], "schedule_config: expected a dict such as {'warmup': 5}, got [5]"),
    ],
)
def test_bad_schedules_are_named(name, config, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        make_schedule(name, config, 2, 5)
    assert str(caught.value).startswith(message)
