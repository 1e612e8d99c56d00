"""After `install()` a notebook's own cells run: one namespace, the course's imports, nothing of fcnet named."""

import os
import re
import runpy
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from fcnet.compat import cs231n

SETUP = """
import numpy as np
from cs231n.classifiers.fc_net import *
from cs231n.data_utils import get_CIFAR10_data
from cs231n.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array
from cs231n.solver import Solver

def rel_error(x, y):
    return np.max(np.abs(x - y) / (np.maximum(1e-8, np.abs(x) + np.abs(y))))

data = make_data()
results = {}
"""

CELLS = [
    """
np.random.seed(231)
x = np.random.randn(4, 2, 3)
w = np.random.randn(6, 5)
b = np.random.randn(5)
dout = np.random.randn(4, 5)
dx_num = eval_numerical_gradient_array(lambda x: affine_forward(x, w, b)[0], x, dout)
dw_num = eval_numerical_gradient_array(lambda w: affine_forward(x, w, b)[0], w, dout)
_, cache = affine_forward(x, w, b)
dx, dw, db = affine_backward(dout, cache)
results['affine'] = max(rel_error(dx_num, dx), rel_error(dw_num, dw))
_, cache = relu_forward(x)
dx = relu_backward(dout[:, :, None] * np.ones((4, 5, 1)), np.ones((4, 5, 1)))
""",
    """
from cs231n.layer_utils import affine_relu_forward, affine_relu_backward
np.random.seed(231)
x = np.random.randn(10, 10)
y = np.random.randint(10, size=10)
for loss_function in (svm_loss, softmax_loss):
    dx_num = eval_numerical_gradient(lambda x: loss_function(x, y)[0], x, verbose=False)
    loss, dx = loss_function(x, y)
    results[loss_function.__name__] = rel_error(dx_num, dx)
""",
    """
np.random.seed(231)
N, D, H1, H2, C = 2, 15, 20, 30, 10
X = np.random.randn(N, D)
y = np.random.randint(C, size=(N,))
for reg in [0, 3.14]:
    print("Running check with reg = ", reg)
    model = FullyConnectedNet([H1, H2], input_dim=D, num_classes=C, reg=reg, weight_scale=5e-2, dtype=np.float64)
    loss, grads = model.loss(X, y)
    print("Initial loss: ", loss)
    for name in sorted(grads):
        f = lambda _: model.loss(X, y)[0]
        grad_num = eval_numerical_gradient(f, model.params[name], verbose=False, h=1e-5)
        results[f"{name} {reg}"] = rel_error(grad_num, grads[name])
""",
    """
from cs231n.optim import sgd_momentum, rmsprop, adam
w = np.linspace(-0.4, 0.6, num=20).reshape(4, 5)
dw = np.linspace(-0.6, 0.4, num=20).reshape(4, 5)
config = {"learning_rate": 1e-3, "velocity": np.linspace(0.6, 0.9, num=20).reshape(4, 5)}
next_w, _ = sgd_momentum(w, dw, config=config)
results['sgd_momentum'] = rel_error(next_w[0, :2], np.asarray([0.1406, 0.20738947]))
""",
    """
small_data = {
    "X_train": data["X_train"][:50], "y_train": data["y_train"][:50],
    "X_val": data["X_val"], "y_val": data["y_val"],
}
model = FullyConnectedNet([100, 100], weight_scale=1e-1, dtype=np.float64)
solver = Solver(model, small_data, print_every=10, num_epochs=10, batch_size=25, update_rule="sgd",
                optim_config={"learning_rate": 1e-3})
solver.train()
""",
    """
solvers = {}
for update_rule in ['sgd', 'sgd_momentum', 'adam', 'rmsprop']:
    model = FullyConnectedNet([20, 20], weight_scale=5e-2)
    solvers[update_rule] = Solver(model, small_data, num_epochs=2, batch_size=10, update_rule=update_rule,
                                  optim_config={'learning_rate': 1e-3}, verbose=False)
    solvers[update_rule].train()
y_val_pred = np.argmax(model.loss(data['X_val']), axis=1)
val_acc = (y_val_pred == data['y_val']).mean()
""",
    """
a = np.random.randn(200, 3) * [1, 5, 9] + 4
bn_param = {'mode': 'train'}
for t in range(50):
    batchnorm_forward(a, np.ones(3), np.zeros(3), bn_param)
bn_param['mode'] = 'test'
a_norm, _ = batchnorm_forward(a, np.ones(3), np.zeros(3), bn_param)
ln_norm, _ = layernorm_forward(a, np.ones(3), np.zeros(3), {'mode': 'train'})
out, _ = dropout_forward(a, {'mode': 'train', 'p': 0.4})
for normalization in ('batchnorm', 'layernorm', None):
    bn_model = FullyConnectedNet([20], weight_scale=2e-2, normalization=normalization, dropout_keep_ratio=0.5)
    Solver(bn_model, small_data, num_epochs=1, batch_size=10, update_rule='adam', verbose=False).train()
""",
    """
from cs231n.vis_utils import visualize_grid
net = TwoLayerNet(3 * 32 * 32, 16, 10)
W1 = net.params['W1'].reshape(32, 32, 3, -1).transpose(3, 0, 1, 2)
grid = visualize_grid(W1, padding=3).astype('uint8')
""",
]


def make_data():
    rng = np.random.default_rng(0)
    means = 50 * rng.normal(size=(10, 3, 32, 32))
    data = {}
    for part, count in (("train", 60), ("val", 20)):
        y = rng.integers(10, size=count)
        data[f"X_{part}"], data[f"y_{part}"] = means[y] + 20 * rng.normal(size=(count, 3, 32, 32)), y
    return data


def test_a_notebook_runs(installed, capsys):
    namespace = {"make_data": make_data}
    for cell in [SETUP, *CELLS]:
        exec(compile(cell, "<cell>", "exec"), namespace)
    worst = max(namespace["results"].values())
    assert len(namespace["results"]) == 1 + 2 + 12 + 1
    assert worst < 1e-3, namespace["results"]
    assert sum(error > 1e-4 for error in namespace["results"].values()) <= 1, "one, beside a kink"
    printed = capsys.readouterr().out
    assert "Running check with reg =  0\nInitial loss:  2.300479089768" in printed, "as readers of the course report"
    assert "Running check with reg =  3.14\nInitial loss:  7.052114776533" in printed
    assert "(Iteration 11 / 20) loss: " in printed
    assert "(Epoch 10 / 10) train acc: 1.000000; val_acc: " in printed
    assert max(namespace["solver"].train_acc_history) == 1.0
    assert all(solver.loss_history[-1] < solver.loss_history[0] for solver in namespace["solvers"].values())
    np.testing.assert_allclose(namespace["a_norm"].std(axis=0), 1, atol=0.01)
    assert namespace["grid"].shape == (4 * 35 - 3, 4 * 35 - 3, 3)


def test_the_modules_are_these_and_not_copies(installed):
    import cs231n as course
    import cs231n.classifiers.fc_net
    import cs231n.optim

    assert course is sys.modules["fcnet.compat.cs231n"]
    assert cs231n.optim is sys.modules["fcnet.compat.cs231n.optim"]
    assert cs231n.classifiers.fc_net.TwoLayerNet is course.TwoLayerNet
    course.install()  # twice does no harm


@pytest.mark.parametrize(
    "name", ["fast_layers", "im2col", "rnn_layers", "captioning_solver", "classifiers.cnn", "classifiers.rnn"]
)
def test_what_is_not_about_fully_connected_nets_says_so(installed, name):
    with pytest.raises(ModuleNotFoundError) as caught:
        import_module(f"cs231n.{name}")
    assert str(caught.value) == (
        f"cs231n.{name}: fcnet has what is about fully connected nets, not this; "
        "use the course's own file, in a session without install()"
    )
    assert caught.value.name == f"cs231n.{name}"


REASON = "fcnet has what is about fully connected nets, not this; use the course's own file"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("layers", "conv_forward_naive"),
        ("layers", "max_pool_backward_naive"),
        ("layers", "spatial_groupnorm_forward"),
        ("layer_utils", "conv_relu_pool_forward"),
        ("layer_utils", "conv_backward_naive"),  # of layers, by its own star import
        ("classifiers.fc_net", "conv_bn_relu_backward"),
        ("data_utils", "load_tiny_imagenet"),
    ],
)
def test_a_name_that_is_not_there_gives_the_reason_however_it_is_asked_for(installed, module, name):
    reason = rf"^cs231n\.{module}\.{name}: {REASON}"
    with pytest.raises(ImportError, match=reason):
        exec(f"from cs231n.{module} import {name}")
    with pytest.raises(ImportError, match=reason):
        getattr(import_module(f"cs231n.{module}"), name)
    namespace = {}
    exec(f"from cs231n.{module} import *", namespace)
    for use in ("{}(1, 2)", "{}.shape", "{}[0]", "list({})", "type('Net', ({},), {{}})", "isinstance(1, {})"):
        with pytest.raises(ImportError, match=rf"{name}: {REASON}"):
            exec(f"class Net({name}): pass" if use.startswith("type") else use.format(name), namespace)
    assert REASON in repr(namespace[name])
    with pytest.raises(AttributeError, match=rf"module 'cs231n\.{module}' has no attribute 'conv'"):
        import_module(f"cs231n.{module}").conv  # noqa: B018


def test_other_packages_are_not_answered_for(installed, monkeypatch):
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'cs232n'"):
        import_module("cs232n")
    monkeypatch.setitem(sys.modules, "cs231n", types.ModuleType("cs231n"))  # a course of somebody else's
    sys.modules["cs231n"].__path__ = []
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'cs231n\.fast_layers'"):
        import_module("cs231n.fast_layers")
    finders = [finder for finder in sys.meta_path if type(finder).__module__ == "fcnet.compat._install"]
    assert len(finders) == 1, "install() twice adds one"


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("layers", "np affine_forward relu_backward batchnorm_backward_alt layernorm_forward dropout_forward svm_loss"),
        ("layer_utils", "affine_relu_forward affine_relu_backward affine_forward"),
        ("layer_utils", "affine_bn_relu_forward affine_bn_relu_backward"),
        ("classifiers.fc_net", "np FullyConnectedNet TwoLayerNet affine_forward affine_relu_forward softmax_loss"),
        ("classifiers", "FullyConnectedNet TwoLayerNet KNearestNeighbor LinearClassifier LinearSVM Softmax"),
        ("classifiers.k_nearest_neighbor", "np KNearestNeighbor"),
        ("classifiers.linear_classifier", "np LinearClassifier LinearSVM Softmax"),
        ("classifiers.linear_classifier", "svm_loss_naive svm_loss_vectorized softmax_loss_vectorized"),
        ("classifiers.linear_svm", "np svm_loss_naive svm_loss_vectorized"),
        ("classifiers.softmax", "np softmax_loss_naive softmax_loss_vectorized"),
        ("classifiers.neural_net", "np TwoLayerNet"),
        ("features", "np extract_features hog_feature rgb2gray"),
        ("features", "color_histogram color_histogram_cross color_histogram_hsv color_histogram_spatial"),
        ("optim", "np sgd sgd_momentum rmsprop adam"),
        ("gradient_check", "eval_numerical_gradient eval_numerical_gradient_array grad_check_sparse rel_error"),
        ("gradient_check", "np randrange eval_numerical_gradient_blobs eval_numerical_gradient_net"),
        ("solver", "np optim Solver"),
        ("data_utils", "np os get_CIFAR10_data load_CIFAR10 load_CIFAR_batch load_pickle"),
        ("vis_utils", "np ceil sqrt visualize_grid vis_grid vis_nn"),
    ],
)
def test_star_imports_give_what_the_courses_give(installed, module, names):
    namespace = {}
    exec(f"from cs231n.{module} import *", namespace)
    assert set(names.split()) <= set(namespace)
    assert not [name for name in namespace if name in ("F", "annotations", "promoted", "Any")]


def test_every_listed_name_is_there():
    for name in cs231n.__all__:
        assert callable(getattr(cs231n, name)), name


def test_install_refuses_to_replace_a_course_already_imported(no_course):
    other = types.ModuleType("cs231n")
    other.__file__ = "starter/cs231n/__init__.py"
    sys.modules["cs231n"] = other
    with pytest.raises(ImportError, match=r"install: .*got the one in starter/cs231n/__init__.py; start Python again"):
        cs231n.install()
    assert sys.modules["cs231n"] is other
    assert "cs231n.layers" not in sys.modules


def test_a_script_is_run_with_the_course_installed(tmp_path):
    """In its own folder's company, with its own arguments; what it raises is its own."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "beside.py").write_text("VALUE = 5")
    (folder / "script.py").write_text(
        "import sys\nfrom beside import VALUE\nfrom cs231n.layers import *\n"
        "print(__name__, sys.argv, VALUE)\n"
        "print((dropout_forward(np.ones((50, 50)), {'mode': 'train', 'p': 0.0})[0] == 1).all())\n"
        "import cs231n.fast_layers\n"
    )
    command = [sys.executable, "-m", "fcnet.compat.cs231n", "--year", "2017", "scripts/script.py", "--year", "x"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"__main__ ['{folder / 'script.py'}', '--year', 'x'] 5", "True"]
    assert done.returncode == 1
    assert f"ModuleNotFoundError: cs231n.fast_layers: {REASON}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: script"),
        (["nothing.py"], "nothing.py: expected a Python script, found no such file; give the path of one"),
        (["knn.ipynb"], "got a notebook; .*`import fcnet.compat.cs231n as course; course.install\\(\\)`"),
        (["--year", "2015", "x.py"], "argument --year: invalid choice: 2015"),
    ],
)
def test_what_cannot_be_run(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["cs231n", *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("fcnet.compat.cs231n", run_name="__main__")
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)
