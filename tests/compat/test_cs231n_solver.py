"""The course's Solver: what it prints, records, keeps and refuses, with fcnet's models and with a user's own."""

import numpy as np
import pytest

import fcnet
from fcnet.compat.cs231n import FullyConnectedNet, Solver, TwoLayerNet, optim


def images(train=50, val=40, classes=10, seed=0):
    """Pictures (n, 3, 4, 4) of `classes` kinds, each its own mean and noise."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, 3, 4, 4))
    data = {}
    for part, count in (("train", train), ("val", val)):
        y = rng.integers(classes, size=count)
        data[f"X_{part}"], data[f"y_{part}"] = means[y] + 0.5 * rng.normal(size=(count, 3, 4, 4)), y
    return data


def net(**options):
    return FullyConnectedNet([20], input_dim=48, weight_scale=0.1, **options)


class Toy:
    """A user's own model, which knows nothing of fcnet: two scores, w and 0; the gradient is always 1."""

    def __init__(self):
        self.params = {"w": np.zeros(1)}
        self.batches = []

    def loss(self, X, y=None):
        if y is None:
            return np.stack([np.full(len(X), self.params["w"][0]), np.zeros(len(X))], axis=1)
        self.batches.append(X[:, 0].astype(int).tolist())
        return float(self.params["w"][0]), {"w": np.ones(1)}


def toy_data(labels, val_labels):
    return {
        "X_train": np.arange(len(labels), dtype=float)[:, None],
        "y_train": np.array(labels),
        "X_val": np.zeros((len(val_labels), 1)),
        "y_val": np.array(val_labels),
    }


@pytest.mark.parametrize(("rule", "rate"), [("sgd", 0.5), ("sgd_momentum", 0.05), ("rmsprop", 5e-3), ("adam", 1e-2)])
def test_it_overfits_50_samples(rule, rate):
    model = FullyConnectedNet([50, 50], input_dim=48, weight_scale=0.1, dtype=np.float64)
    solver = Solver(
        model, images(), update_rule=rule, optim_config={"learning_rate": rate}, batch_size=25, num_epochs=40,
        verbose=False,
    )  # fmt: skip
    solver.train()
    assert max(solver.train_acc_history) == 1.0
    assert len(solver.loss_history) == 80
    assert solver.loss_history[-1] < 0.1 < solver.loss_history[0]


def test_history_and_schedule():
    """55 samples in batches of 10: five steps an epoch, the rest left over."""
    solver = Solver(net(), images(55), batch_size=10, num_epochs=3, lr_decay=0.5, verbose=False)
    assert (solver.epoch, solver.best_val_acc, solver.best_params) == (0, 0, {})
    solver.train()
    assert solver.epoch == 3
    assert len(solver.loss_history) == 15
    assert len(solver.train_acc_history) == len(solver.val_acc_history) == 4, "first step and each epoch"
    assert all(isinstance(loss, float) for loss in solver.loss_history)
    assert solver.best_val_acc == max(solver.val_acc_history)
    for config in solver.optim_configs.values():
        assert config["learning_rate"] == pytest.approx(1e-2 * 0.5**3)
    assert set(solver.optim_configs) == set(solver.model.params)


def test_an_epoch_has_at_least_one_step():
    solver = Solver(net(), images(20), batch_size=100, num_epochs=2, verbose=False)
    solver.train()
    assert len(solver.loss_history) == 2
    assert len(solver.val_acc_history) == 2, "the first step ends the first epoch: recorded once"


def test_each_parameter_has_a_config_of_its_own():
    config = {"learning_rate": 1e-3, "beta1": 0.8}
    solver = Solver(
        net(), images(), update_rule="adam", optim_config=config, batch_size=25, num_epochs=1, verbose=False
    )
    assert solver.optim_configs["W1"] == config
    assert solver.optim_configs["W1"] is not solver.optim_configs["b1"]
    solver.train()
    assert solver.optim_configs["W1"]["m"].shape == (48, 20)
    assert solver.optim_configs["b1"]["t"] == 2
    assert config == {"learning_rate": 1e-3, "beta1": 0.8}, "the caller's dictionary is not touched"
    assert solver.update_rule is optim.adam


@pytest.mark.parametrize("print_every", [3, -3])  # -1 is found in readers' notebooks; t % -3 is 0 as often as t % 3
def test_it_prints_the_courses_lines(print_every, capsys):
    solver = Solver(net(), images(40), batch_size=10, num_epochs=2, print_every=print_every)
    solver.train()
    lines = capsys.readouterr().out.splitlines()
    loss, train, val = solver.loss_history, solver.train_acc_history, solver.val_acc_history
    assert lines == [
        f"(Iteration 1 / 8) loss: {loss[0]:.6f}",
        f"(Epoch 0 / 2) train acc: {train[0]:.6f}; val_acc: {val[0]:.6f}",
        f"(Iteration 4 / 8) loss: {loss[3]:.6f}",
        f"(Epoch 1 / 2) train acc: {train[1]:.6f}; val_acc: {val[1]:.6f}",
        f"(Iteration 7 / 8) loss: {loss[6]:.6f}",
        f"(Epoch 2 / 2) train acc: {train[2]:.6f}; val_acc: {val[2]:.6f}",
    ]


def test_it_prints_nothing_when_not_verbose(capsys, tmp_path):
    Solver(net(), images(), num_epochs=1, verbose=False, checkpoint_name=str(tmp_path / "c")).train()
    assert capsys.readouterr() == ("", "")


def test_a_users_own_model():
    model = Toy()
    solver = Solver(
        model, toy_data([0, 1, 1, 1], [1, 1, 0]), optim_config={"learning_rate": 0.25}, batch_size=2, num_epochs=2,
        verbose=False,
    )  # fmt: skip
    solver.train()
    assert solver.loss_history == [0, -0.25, -0.5, -0.75]
    assert solver.train_acc_history == [0.75] * 3, "w < 0: class 1 everywhere"
    assert solver.val_acc_history == [2 / 3] * 3
    np.testing.assert_allclose(model.params["w"], [-0.25], err_msg="the first of equals is the best")
    assert len(model.batches) == 4
    assert all(len(rows) == 2 for rows in model.batches)


def test_a_run_that_never_scores_keeps_its_parameters():
    """The course ends with an empty dictionary here."""
    model = Toy()
    solver = Solver(model, toy_data([0, 0], [0, 0]), batch_size=2, num_epochs=3, verbose=False)
    solver.train()
    assert solver.val_acc_history == [0, 0, 0]
    assert solver.best_val_acc == 0
    np.testing.assert_allclose(model.params["w"], [-0.01])


def test_batches_are_drawn_with_replacement_by_a_generator_of_its_own():
    runs = []
    for seed in (0, 0, 1):
        np.random.seed(1)
        state = np.random.get_state()[1].copy()
        model = Toy()
        Solver(model, toy_data([1] * 8, [1, 1]), batch_size=8, num_epochs=6, seed=seed, verbose=False).train()
        assert np.array_equal(np.random.get_state()[1], state), "NumPy's global generator is not used"
        runs.append(model.batches)
    assert runs[0] == runs[1] != runs[2]
    assert any(len(set(rows)) < 8 for rows in runs[0])
    assert len({tuple(rows) for rows in runs[0]}) == 6, "another batch at each step"
    assert {row for rows in runs[0] for row in rows} == set(range(8))


@pytest.mark.parametrize("normalization", [None, "batchnorm"])
def test_the_best_parameters_are_put_back(normalization):
    """A rate that rises a thousandfold ruins the last epoch; the model left behind is an earlier one, whole."""
    data = images(100)
    model = net(normalization=normalization, dtype=np.float64)
    solver = Solver(
        model, data, optim_config={"learning_rate": 0.1}, lr_decay=1e3, batch_size=20, num_epochs=2, verbose=False
    )
    with np.errstate(all="ignore"):
        solver.train()
    assert solver.val_acc_history[-1] < solver.best_val_acc
    assert solver.check_accuracy(data["X_val"], data["y_val"]) == solver.best_val_acc == max(solver.val_acc_history)
    kept = {name: value.copy() for name, value in solver.best_params.items()}
    assert all(np.array_equal(model.params[name], kept[name]) for name in kept)
    model.params["W1"] += 1
    assert np.array_equal(solver.best_params["W1"], kept["W1"]), "a copy of its own"


def test_the_best_parameters_do_not_follow_a_model_that_changes_in_place():
    model = net()
    solver = Solver(model, images(), num_epochs=1, verbose=False)
    solver._evaluate()
    kept = model.params["W1"].copy()
    model.params["W1"] += 1
    assert np.array_equal(solver.best_params["W1"], kept)


def test_check_accuracy():
    data = toy_data([1, 1, 1, 0], [1, 0])
    model = Toy()
    model.params["w"][:] = -1
    solver = Solver(model, data, verbose=False)
    X, y = data["X_train"], data["y_train"]
    assert solver.check_accuracy(X, y) == 0.75
    assert solver.check_accuracy(X, y, batch_size=3) == 0.75, "a short last batch counts by its size"
    assert solver.check_accuracy(X, y, num_samples=4) == solver.check_accuracy(X, y, num_samples=99) == 0.75
    assert solver.check_accuracy(X, y, num_samples=1) in (0.0, 1.0)
    assert solver.check_accuracy(X, y, num_samples=3) in (2 / 3, 1.0)


def test_the_number_of_samples_for_accuracy():
    class Counting(Toy):
        seen = ()

        def loss(self, X, y=None):
            if y is None:
                self.seen += (len(X),)
            return super().loss(X, y)

    model = Counting()
    data = toy_data([1] * 30, [1] * 20)
    Solver(model, data, num_train_samples=5, num_val_samples=3, num_epochs=1, verbose=False).train()
    assert model.seen == (5, 3)
    model = Counting()
    Solver(model, data, num_train_samples=None, num_epochs=1, verbose=False).train()
    assert model.seen == (30, 20)


def test_checkpoints(tmp_path, capsys):
    name = str(tmp_path / "run")
    data = images()
    model = net(normalization="batchnorm")
    Solver(
        model, data, num_epochs=2, batch_size=25, optim_config={"learning_rate": 0.1}, checkpoint_name=name
    ).train()  # fast enough for the first step not to be the best
    files = [f"{name}_epoch_1.safetensors", f"{name}_epoch_2.safetensors"]
    assert sorted(str(path) for path in tmp_path.iterdir()) == files
    saving = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Saving")]
    assert saving == [f'Saving checkpoint to "{file}"' for file in files]
    first, second = (fcnet.load(file, device="cpu") for file in files)
    assert not np.array_equal(first.params["W1"], second.params["W1"])
    assert any(np.allclose(m.scores(data["X_val"]), model.loss(data["X_val"]), atol=1e-5) for m in (first, second)), (
        "the best of the two epochs is what the model was left with"
    )


def test_training_goes_on():
    solver = Solver(TwoLayerNet(48), images(), batch_size=25, num_epochs=1, verbose=False)
    solver.train()
    solver.train()
    assert solver.epoch == 2
    assert len(solver.loss_history) == 4


DATA = images(10, 10)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": 1}, ValueError, r'Unrecognized arguments "learning_rate"; expected.*optim_config'),
        ({"update_rule": "adma"}, ValueError, r"update_rule: expected one of adam.*'adma'; did you mean 'adam'"),
        ({"update_rule": "RULES"}, ValueError, r"update_rule"),
        ({"update_rule": "np"}, ValueError, r"update_rule"),
        ({"batch_size": 0}, ValueError, r"batch_size: expected 1 or more"),
        ({"num_epochs": 0}, ValueError, r"num_epochs: expected 1 or more"),
        ({"print_every": 0}, ValueError, r"print_every: expected 1 or more"),
        ({"lr_decay": "0.9"}, TypeError, r"lr_decay: expected a number"),
        ({"data": {"X_train": DATA["X_train"]}}, ValueError, r"data: expected a dictionary.*got no y_train"),
        ({"data": [1]}, ValueError, r"data: expected a dictionary"),
        ({"data": DATA | {"y_val": DATA["y_val"][:3]}}, ValueError, r"data\['y_val'\].*10 samples of X_val"),
        ({"data": DATA | {"y_val": [1] * 10}}, TypeError, r"data\['y_val'\]: expected an array, got list"),
        ({"model": Toy(), "checkpoint_name": "x"}, TypeError, r"checkpoint_name: expected a model with save"),
    ],
)
def test_bad_arguments_give_one_clear_line(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        Solver(**({"model": net(), "data": DATA} | arguments))
    assert "\n" not in str(caught.value)


def test_a_model_without_a_gradient_for_a_parameter():
    model = Toy()
    model.params["b"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"model.loss: expected a gradient for each of params, got none for 'b'"):
        Solver(model, toy_data([1, 1], [1]), verbose=False).train()
