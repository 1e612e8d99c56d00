"""A whole training step on the guard device: no hidden wait, no allocation of any size, the CPU's bits."""

import itertools

import numpy as np
import pytest

import fcnet
from fcnet.functional import ACTIVATIONS
from fcnet.optim import RULES
from tests import small

pytestmark = pytest.mark.usefixtures("references_only")  # whose bits the guard has

N, D, C = 32, 20, 3
WIDTHS = [300, 310]  # wide: even a byte per hidden unit is more than what is tolerated
TRAIN = 80  # batches of 32, 32 and 16


def data(kind="uint8", one_hot=False):
    rng = np.random.default_rng(0)
    X = rng.integers(256, size=(TRAIN, D)).astype(kind)
    y = np.arange(TRAIN) % C
    if one_hot:
        y = np.eye(C)[y]
    return {"X_train": X, "y_train": y, "X_val": X[:10], "y_val": y[:10]}


def make_solver(device, *, widths=WIDTHS, kind="uint8", preprocess="standardize", one_hot=False, rule="sgd", **model):
    net = fcnet.FullyConnectedNet(list(widths), D, C, seed=1, device=device, **model)
    return fcnet.Solver(
        net,
        data(kind, one_hot),
        update_rule=rule,
        optim_config={"learning_rate": 1e-3},
        lr_decay=0.9,
        batch_size=N,
        preprocess=preprocess,
        verbose=False,
    )


MODELS = [
    {"normalization": normalization, "dropout_keep_ratio": keep, "reg": reg}
    for normalization, keep, reg in itertools.product((None, "batchnorm", "layernorm"), (1.0, 0.7), (0.0, 0.1))
]
NORMED = {"normalization": "batchnorm", "dropout_keep_ratio": 0.7}
CASES = [
    *MODELS,
    *({"rule": rule} for rule in RULES),
    *({"activation": name} for name in ACTIVATIONS if name != "relu"),
    *({"activation": name, **NORMED} for name in ("sigmoid", "gelu", "maxout")),
    {"activation": ["maxout", "tanh"], "normalization": "layernorm", "maxout_pieces": 3},
    {"dropout_keep_ratio": 0.7, "dropout": "plain"},
    {"dropout": "plain", **NORMED},
    {"loss": "svm"},
    {"loss": "mse", "one_hot": True},
    {"loss": "bce", "one_hot": True},
    {"label_smoothing": 0.1},
    {"dtype": "float64", "normalization": "batchnorm", "dropout_keep_ratio": 0.7, "reg": 0.1},
    {"preprocess": "none"},
    {"preprocess": "scale"},
    {"kind": "float32"},
    {"kind": "float64", "preprocess": "none"},
    {"one_hot": True},
    {"widths": []},
    {"widths": [300]},
]


def case_id(case):
    return ", ".join(f"{name}={value}" for name, value in case.items())


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_step_neither_waits_nor_allocates(case, guard):
    solver = make_solver("guard", **case)
    with guard.no_waits():
        for _ in range(3):  # an epoch: two full batches and the short one, each recorded at its first step
            solver.step()
        assert solver.epoch == 1
        for size in (N, N, 16) * 2:
            with guard.recording() as log:
                solver.step()
            # Rows over the classes for the loss, and one value per unit or per row; never a matrix of activations
            # or anything the size of a parameter. random_bits has no out= to give it a buffer: its 16-bit numbers
            # are the one thing of a hidden layer's size that is new in each step.
            tolerated = 16 * size * (C + 2) + 600 + 8 * max(solver.model.hidden_dims, default=0)
            large = [e for e in log.allocations if e.nbytes > tolerated and e.what != "random_bits"]
            assert large == []
            # An epoch's end uploads the next permutation; nothing else is ever sent.
            assert [e.what for e in log.uploads] == (["upload"] if size == 16 else [])
    assert solver.epoch == 3
    assert guard.log.waits == []
    assert np.isfinite(solver.loss_history).all()


def test_random_bits_are_the_only_exception(guard):
    """Without dropout none are drawn; with it, one array per hidden layer and step."""
    for keep, layers in ((1.0, 0), (0.7, 2)):
        solver = make_solver("guard", dropout_keep_ratio=keep)
        solver.step()
        with guard.recording() as log:
            solver.step()
        assert sum(event.what == "random_bits" for event in log.allocations) == layers


def test_the_rate_is_set_without_a_wait_or_an_upload(guard):
    solver = make_solver("guard")
    with guard.no_waits(), guard.recording() as log:
        solver.optimizer.learning_rate = 0.5
    assert log.uploads == []


def test_the_log_of_losses_is_emptied_without_a_wait(guard, monkeypatch):
    monkeypatch.setattr("fcnet.training.solver.LOSS_CHUNK", 2)
    solver, expected = make_solver("guard", widths=[4]), make_solver("cpu", widths=[4])
    with guard.no_waits():
        for _ in range(7):
            solver.step()
    for _ in range(7):
        expected.step()
    assert len(solver.loss_history) == 7
    assert solver.loss_history == expected.loss_history


NARROW = [7, 5]  # below a block of the CPU's, so that sums are taken over the same pieces
SIXTY = [*MODELS, *(case for case in CASES if not {"kind", "widths"} & set(case) and case not in MODELS)]


@pytest.mark.parametrize("case", SIXTY, ids=case_id)
def test_sixty_steps_give_the_bits_of_the_cpu(case):
    solvers = [make_solver(device, widths=NARROW, **case) for device in ("cpu", "guard")]
    for solver in solvers:
        for _ in range(60):
            solver.step()
    cpu, guard = solvers
    assert len(cpu.loss_history) == 60
    assert np.isfinite(cpu.loss_history).all()
    assert guard.loss_history == cpu.loss_history
    for name, value in cpu.model.params.items():
        np.testing.assert_array_equal(guard.model.backend.to_numpy(guard.model.params[name]), value, err_msg=name)


def test_a_training_with_evaluation_gives_the_bits_of_the_cpu():
    """Everything else that runs on the device: accuracies, predictions, losses, copies, the best parameters."""
    results = []
    for device in ("cpu", "guard"):
        solver = make_solver(device, widths=NARROW, normalization="batchnorm", rule="adam")
        history = solver.train()
        model, X, y = solver.model, data()["X_val"], data()["y_val"]
        loss, grads = model.loss(X, y)
        results.append(
            [
                [{k: v for k, v in row.items() if k != "seconds"} for row in history],
                model.predict(X).tolist(),
                model.predict_proba(X).tolist(),
                solver.check_accuracy(X, y),
                loss,
                model.backend.to_numpy(grads["W1"]).tolist(),
                fcnet.gradcheck(model, X, y, samples=3),
            ]
        )
    for on_cpu, on_guard in zip(*results, strict=True):
        assert on_cpu == on_guard


def test_device_arrays_in_device_arrays_out(guard):
    model = make_solver("guard", widths=NARROW).model
    X = data()["X_val"]
    scores = model.scores(guard.asarray(X), batch_size=4)
    assert guard.owns(scores)
    np.testing.assert_array_equal(guard.to_numpy(scores), model.scores(X, batch_size=4))


@pytest.mark.parametrize("normalization", ["batchnorm", "layernorm"])
def test_gradients_of_three_layers_take_turns_in_two_buffers(normalization, guard):
    """With a norm, dz lies where the layer above wrote its dx: the next product must not write there."""
    options = {"hidden": (4, 5, 6), "normalization": normalization}
    there, here = (small.solver(small.blobs(), device, net_options=options, batch_size=40) for device in (guard, "cpu"))
    there.step(4), here.step(4)
    assert there.loss_history == here.loss_history
