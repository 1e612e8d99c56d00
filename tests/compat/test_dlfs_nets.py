"""The book's networks and its trainer."""

import copy
import math

import numpy as np
import pytest

from fcnet.compat.dlfs import MultiLayerNet, MultiLayerNetExtend, Trainer, shuffle_dataset, smooth_curve
from fcnet.tools.gradcheck import relative_error
from tests.small import blobs

OPTIONS = [
    {},
    {"activation": "sigmoid", "weight_init_std": "sigmoid"},
    {"activation": "tanh", "weight_init_std": 0.5},
    {"weight_decay_lambda": 0.3},
]
EXTENDED = [
    {"use_batchnorm": True},
    {"use_dropout": True, "dropout_ration": 0.3},
    {"use_batchnorm": True, "use_dropout": True, "weight_decay_lambda": 0.1},
]
NETS = [(MultiLayerNet, options) for options in OPTIONS]
NETS += [(MultiLayerNetExtend, options) for options in OPTIONS[-1:] + EXTENDED]


@pytest.mark.parametrize(("kind", "options"), NETS)
@pytest.mark.parametrize("one_hot", [False, True])
def test_gradients(kind, options, one_hot, rng):
    network = kind(6, [5, 4], 3, **options, seed=1)
    for name, value in network.params.items():
        if name[0] in "b":
            value += rng.normal(size=value.shape)  # away from the kinks of ReLU
    x, t = rng.normal(size=(7, 1, 2, 3)), rng.integers(3, size=7)
    t = np.eye(3)[t] if one_hot else t
    numeric = network.numerical_gradient(x, t)
    analytic = network.gradient(x, t)
    of_a_layer = ["W1", "b1", *(["gamma1", "beta1"] if options.get("use_batchnorm") else []), "W2"]
    assert list(analytic) == list(numeric)
    assert list(analytic)[: len(of_a_layer)] == of_a_layer, "as the book's scripts print them"
    for name, grad in analytic.items():
        if options.get("use_batchnorm") and name in ("b1", "b2"):
            np.testing.assert_allclose(grad, numeric[name], atol=1e-8)  # zero: the mean takes the bias off
        else:
            assert relative_error(numeric[name], grad, floor=1e-4) < 2e-4, name


@pytest.mark.parametrize("options", [{}, *EXTENDED])
def test_layers_have_the_books_names(options):
    network = MultiLayerNetExtend(4, [3, 2], 2, **options)
    expected = []
    for idx in (1, 2):
        expected.append(f"Affine{idx}")
        expected += [f"BatchNorm{idx}"] if options.get("use_batchnorm") else []
        expected.append(f"Activation_function{idx}")
        expected += [f"Dropout{idx}"] if options.get("use_dropout") else []
    assert list(network.layers) == [*expected, "Affine3"]
    assert network.layers["Affine2"].W is network.params["W2"]
    if options.get("use_batchnorm"):
        assert network.layers["BatchNorm2"].gamma is network.params["gamma2"]
        assert network.params["gamma1"].tolist() == [1, 1, 1]
        assert network.params["beta2"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("weight_init_std", "first", "second"),
    [
        ("relu", math.sqrt(2 / 300), math.sqrt(2 / 200)),
        ("He", math.sqrt(2 / 300), math.sqrt(2 / 200)),
        ("sigmoid", math.sqrt(1 / 300), math.sqrt(1 / 200)),
        ("Xavier", math.sqrt(1 / 300), math.sqrt(1 / 200)),
        (0.01, 0.01, 0.01),
    ],
)
def test_initial_weights(weight_init_std, first, second):
    params = MultiLayerNet(300, [200], 50, weight_init_std=weight_init_std).params
    assert params["W1"].std() == pytest.approx(first, rel=0.02)
    assert params["W2"].std() == pytest.approx(second, rel=0.03)
    assert not params["b1"].any()
    assert not params["b2"].any()


def test_weight_decay_is_in_the_loss():
    options = {"input_size": 3, "hidden_size_list": [4], "output_size": 2, "seed": 2}
    plain, decayed = MultiLayerNet(**options), MultiLayerNet(**options, weight_decay_lambda=0.6)
    x, t = np.ones((2, 3)), np.array([0, 1])
    squares = math.fsum(v * v for name in ("W1", "W2") for v in plain.params[name].ravel())
    assert decayed.loss(x, t) == pytest.approx(plain.loss(x, t) + 0.5 * 0.6 * squares, rel=1e-12)
    np.testing.assert_allclose(decayed.gradient(x, t)["W1"], plain.gradient(x, t)["W1"] + 0.6 * plain.params["W1"])
    assert np.array_equal(decayed.layers["Affine1"].dW, plain.layers["Affine1"].dW), "the layer knows no decay"


def test_each_layer_has_masks_of_its_own():
    network = MultiLayerNetExtend(6, [50, 50], 3, use_dropout=True, seed=1)
    network.predict(np.ones((4, 6)), train_flg=True)
    one, two = (network.layers[f"Dropout{idx}"].mask for idx in (1, 2))
    assert not np.array_equal(one, two)
    other = MultiLayerNetExtend(6, [50, 50], 3, use_dropout=True, seed=2)
    other.predict(np.ones((4, 6)), train_flg=True)
    assert not np.array_equal(other.layers["Dropout1"].mask, one)


def test_train_flg_chooses_the_mode(rng):
    network = MultiLayerNetExtend(6, [50], 3, use_dropout=True, use_batchnorm=True)
    x, t = rng.normal(size=(8, 6)), rng.integers(3, size=8)
    assert network.loss(x, t) == network.loss(x, t)
    assert network.loss(x, t, train_flg=True) != network.loss(x, t, train_flg=True)
    assert np.array_equal(network.predict(x), network.predict(x, train_flg=False))
    assert not np.array_equal(network.predict(x), network.predict(x, train_flg=True))


def test_the_trainer_learns_and_keeps_the_books_lists(capsys):
    data = blobs(n=120)
    network = MultiLayerNetExtend(6, [20], 3, use_batchnorm=True)
    parts = data.X_train, data.y_train, data.X_test, data.y_test
    trainer = Trainer(network, *parts, epochs=12, mini_batch_size=30, optimizer="Adam", optimizer_param={"lr": 0.02})
    trainer.train()
    assert (trainer.iter_per_epoch, trainer.max_iter, trainer.current_iter, trainer.current_epoch) == (4, 48, 48, 12)
    assert len(trainer.train_loss_list) == 48
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 12
    assert trainer.train_loss_list[-1] < 0.3 * trainer.train_loss_list[0]
    assert trainer.test_acc_list[-1] > 0.9
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"train loss:{trainer.train_loss_list[0]}"
    assert lines[1] == f"=== epoch:1, train acc:{trainer.train_acc_list[0]}, test acc:{trainer.test_acc_list[0]} ==="
    assert lines[-2:] == [
        "=============== Final Test Accuracy ===============",
        f"test acc:{network.accuracy(data.X_test, data.y_test)}",
    ]


class Recorder:
    """A network that learns nothing and remembers what it was given."""

    def __init__(self):
        self.params, self.batches, self.evaluated = {"w": np.zeros(1)}, [], []

    def gradient(self, x, t):
        self.batches.append(x[:, 0].tolist())
        return {"w": np.ones(1)}

    def loss(self, x, t):
        return 0.5

    def accuracy(self, x, t):
        self.evaluated.append(len(x))
        return 0.25


def record(n, batch, **options):
    network, x = Recorder(), np.arange(n)[:, None]
    trainer = Trainer(network, x, np.zeros(n, int), x[:4], np.zeros(4, int), 3, batch, verbose=False, **options)
    trainer.train()
    return trainer, network


def test_batches_are_drawn_with_replacement():
    _, network = record(20, 10)
    assert all(len(batch) == 10 for batch in network.batches)
    assert any(len(set(batch)) < 10 for batch in network.batches)
    seen = {row for batch in network.batches[:2] for row in batch}
    assert len(seen) < 20, "an epoch leaves some samples out"
    assert record(20, 10)[1].batches != network.batches
    assert record(20, 10, seed=1)[1].batches == record(20, 10, seed=1)[1].batches


@pytest.mark.parametrize("seed", [None, 5])
def test_random_numbers_are_numpys_in_the_books_order(seed):
    """All weights, then for each step its batch and a mask for each hidden layer; with a seed, from generators of their
    own, which begin as the global one does after that seed.
    """
    batches, x, t = [], np.arange(40.0).reshape(20, 2), np.arange(20) % 3
    np.random.seed(5)
    network = MultiLayerNetExtend(2, [4, 3], 3, weight_init_std=0.5, use_dropout=True, dropout_ration=0.3, seed=seed)
    weights = {name: value.copy() for name, value in network.params.items()}
    gradient = network.gradient
    network.gradient = lambda x, t: batches.append(x) or gradient(x, t)
    Trainer(network, x, t, x, t, mini_batch_size=6, verbose=False, seed=seed).train_step()
    shuffled, _ = shuffle_dataset(x, t, seed=seed)

    np.random.seed(5)
    of_network, of_batches, of_order = (
        [np.random] * 3 if seed is None else [np.random.RandomState(seed) for _ in range(3)]
    )
    for name, shape in (("W1", (2, 4)), ("W2", (4, 3)), ("W3", (3, 3))):
        assert np.array_equal(weights[name], 0.5 * of_network.randn(*shape)), name
    assert np.array_equal(batches[0], x[of_batches.choice(20, 6)])
    for idx, width in ((1, 4), (2, 3)):
        assert np.array_equal(network.layers[f"Dropout{idx}"].mask, of_network.rand(6, width) > 0.3), idx
    assert np.array_equal(shuffled, x[of_order.permutation(20)])


def test_a_copy_draws_from_the_global_generator_too():
    network = copy.deepcopy(MultiLayerNetExtend(2, [40], 3, use_dropout=True))
    x = np.ones((5, 2))
    np.random.seed(1)
    network.predict(x, train_flg=True)
    np.random.seed(1)
    assert np.array_equal(network.layers["Dropout1"].mask, np.random.rand(5, 40) > 0.5)


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
def test_every_optimizer_by_its_name(name):
    trainer, _ = record(20, 10, optimizer=name)
    assert type(trainer.optimizer).__name__ == name
    assert trainer.optimizer.lr == 0.01
    trainer, _ = record(20, 10, optimizer=name.lower(), optimizer_param={"lr": 0.25})
    assert type(trainer.optimizer).__name__ == name
    assert trainer.optimizer.lr == 0.25


def test_epochs_whose_length_is_not_whole():
    """30 / 12 = 2.5 steps an epoch: evaluated at steps 0, 3 and 5, not only at 0 and 5 as by the remainder."""
    trainer, network = record(30, 12)
    assert (trainer.iter_per_epoch, trainer.max_iter) == (2.5, 7)
    assert len(trainer.train_acc_list) == trainer.current_epoch == 3
    assert network.evaluated == [30, 4] * 3
    trainer, network = record(5, 100, evaluate_sample_num_per_epoch=2)
    assert (trainer.iter_per_epoch, trainer.max_iter) == (1, 3)
    assert network.evaluated == [2, 2] * 3


def test_smooth_curve():
    """11 neighbours weighed by a Kaiser window of beta 2, mirrored at the ends."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)

    def bessel(z):
        return math.fsum((z / 2) ** (2 * k) / math.factorial(k) ** 2 for k in range(30))

    weights = [bessel(2 * math.sqrt(1 - (i / 5) ** 2)) for i in range(-5, 6)]
    smooth = smooth_curve(x)
    assert smooth.shape == x.shape
    for i in range(30):
        around = [x[abs(j)] if j < 30 else x[58 - j + 1] for j in range(i - 5, i + 6)]
        expected = math.fsum(w * v for w, v in zip(weights, around, strict=True)) / math.fsum(weights)
        assert smooth[i] == pytest.approx(expected, rel=1e-9), i
    np.testing.assert_allclose(smooth_curve([2.0] * 11), 2)
    with pytest.raises(ValueError, match="x: expected 11 numbers or more"):
        smooth_curve(x[:10])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, r"activation: expected one of relu, sigmoid, tanh; got 'rleu'; did you mean 'relu'"),
        ({"weight_init_std": "hee"}, r"weight_init_std: expected one of .* did you mean 'he'"),
        ({"weight_init_std": -1}, r"weight_init_std: expected a standard deviation of 0 or more"),
        ({"weight_decay_lambda": -1}, r"weight_decay_lambda: expected 0 or more"),
        ({"hidden_size_list": [0]}, r"hidden_size_list: expected 1 or more"),
    ],
)
def test_bad_options_of_a_network(options, message):
    with pytest.raises(ValueError, match=message):
        MultiLayerNet(**({"input_size": 2, "hidden_size_list": [3], "output_size": 2} | options))


@pytest.mark.parametrize("kind", [MultiLayerNet, MultiLayerNetExtend])
@pytest.mark.parametrize("widths", [100, "100"])
def test_widths_that_are_no_list(kind, widths):
    with pytest.raises(TypeError, match=rf"hidden_size_list: expected a list .* \[100, 100\], got {widths!r}$"):
        kind(784, widths, 10)


def test_bad_options_of_a_trainer():
    x, t = np.zeros((4, 2)), np.zeros(4, int)
    network = MultiLayerNet(2, [3], 2)
    with pytest.raises(ValueError, match=r"optimizer: expected one of sgd, .* did you mean 'adam'"):
        Trainer(network, x, t, x, t, optimizer="adamm")
    with pytest.raises(ValueError, match=r"t_test: expected a label for each sample of x_test, 4, got 3"):
        Trainer(network, x, t, x, t[:3])
    with pytest.raises(ValueError, match=r"epochs: expected 1 or more, got 0"):
        Trainer(network, x, t, x, t, epochs=0)
    for count in (0, -1):
        with pytest.raises(ValueError, match=rf"evaluate_sample_num_per_epoch: expected 1 or more, got {count}"):
            Trainer(network, x, t, x, t, evaluate_sample_num_per_epoch=count)
    with pytest.raises(ValueError, match=r"optimizer: expected one of sgd, .* got None"):
        Trainer(network, x, t, x, t, optimizer=None)
    with pytest.raises(ValueError, match=r"optimizer_param for sgd: expected one of lr; got 'momentum'"):
        Trainer(network, x, t, x, t, optimizer_param={"lr": 0.1, "momentum": 0.9})
    with pytest.raises(TypeError, match=r"optimizer_param: expected a dict such as \{'lr': 0.01\}, got 0.1"):
        Trainer(network, x, t, x, t, optimizer_param=0.1)
