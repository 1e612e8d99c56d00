"""After `install()` the book's scripts run as they are: their imports, MNIST, and what there is no place for here."""

import gzip
import os
import struct
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fcnet
from fcnet.compat import dlfs
from fcnet.compat.dlfs import load_mnist

COUNTS = {"train": 300, "t10k": 40}


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Make a book's folder with a chapter to work in and four small files; return their content."""
    rng = np.random.default_rng(0)
    digits = rng.integers(256, size=(10, 28, 28))
    folder, parts = tmp_path / "dataset", {}
    folder.mkdir()
    for part, count in COUNTS.items():
        t = rng.integers(10, size=count).astype(np.uint8)
        x = np.clip(digits[t] + rng.integers(-40, 40, size=(count, 28, 28)), 0, 255).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(t)))
        parts[part] = x, t
    (tmp_path / "ch05").mkdir()
    monkeypatch.chdir(tmp_path / "ch05")
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nowhere"))
    return parts


def test_load_mnist(mnist):
    for part, (x, t) in zip(mnist.values(), load_mnist(), strict=True):
        pixels, labels = part
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, pixels.reshape(len(x), 784) / 255, rtol=1e-6)
        assert np.array_equal(t, labels)
        assert t.dtype == np.uint8
    (x, t), (x_test, t_test) = load_mnist(normalize=False, flatten=False, one_hot_label=True)
    assert x.dtype == np.uint8
    assert np.array_equal(x[:, 0], mnist["train"][0])
    assert x_test.shape == (40, 1, 28, 28)
    assert t.shape == (300, 10)
    assert np.array_equal(t_test.argmax(axis=1), mnist["t10k"][1])
    assert np.array_equal(t.sum(axis=1), np.ones(300))


def test_mnist_is_found_from_here_or_from_a_chapter(mnist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load_mnist()[0][0]) == 300
    file = tmp_path / "dataset" / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"expected a complete \.gz file; got a damaged one"):
        load_mnist()
    file.unlink()
    with pytest.raises(FileNotFoundError, match="get them with: fcnet fetch mnist"):
        load_mnist()


TWO_LAYER_NET = """
import sys, os
sys.path.append(os.pardir)
from common.functions import *
from common.gradient import numerical_gradient

class TwoLayerNet:
    def __init__(self, D, H, C, std=0.01):
        self.params = {'W1': std * np.random.randn(D, H), 'b1': np.zeros(H),
                       'W2': std * np.random.randn(H, C), 'b2': np.zeros(C)}

    def predict(self, x):
        z1 = sigmoid(np.dot(x, self.params['W1']) + self.params['b1'])
        return softmax(np.dot(z1, self.params['W2']) + self.params['b2'])

    def loss(self, x, t):
        return cross_entropy_error(self.predict(x), t)

    def gradients(self, x, t):
        p, numeric = self.params, {}
        for name in p:
            numeric[name] = numerical_gradient(lambda W: self.loss(x, t), p[name])
        a1 = np.dot(x, p['W1']) + p['b1']
        z1 = sigmoid(a1)
        dy = (softmax(np.dot(z1, p['W2']) + p['b2']) - t) / x.shape[0]
        da1 = sigmoid_grad(a1) * np.dot(dy, p['W2'].T)
        return numeric, {'W1': x.T @ da1, 'b1': da1.sum(axis=0), 'W2': z1.T @ dy, 'b2': dy.sum(axis=0)}

x, t = np.random.rand(5, 4), np.eye(3)[[0, 1, 2, 1, 0]]
numeric, analytic = TwoLayerNet(4, 6, 3, 1.0).gradients(x, t)
worst = max(np.abs(numeric[name] - analytic[name]).max() for name in numeric)
"""

SIMPLE_NET = """
import numpy as np
from common.functions import softmax, cross_entropy_error
from common.gradient import numerical_gradient

class simpleNet:
    def __init__(self):
        self.W = np.array([[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]])

    def loss(self, x, t):
        return cross_entropy_error(softmax(np.dot(x, self.W)), t)

x, t = np.array([0.6, 0.9]), np.array([0, 0, 1])
net = simpleNet()
dW = numerical_gradient(lambda w: net.loss(x, t), net.W)
"""

LAYERS = """
from common.layers import *
from collections import OrderedDict
from dataset.mnist import load_mnist
from two_layer_net import TwoLayerNet

(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, one_hot_label=True)
network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
for i in range(100):
    batch_mask = np.random.choice(x_train.shape[0], 100)
    grad = network.gradient(x_train[batch_mask], t_train[batch_mask])
    for key in ('W1', 'b1', 'W2', 'b2'):
        network.params[key] -= 0.1 * grad[key]
    loss = network.loss(x_train[batch_mask], t_train[batch_mask])
accuracy = network.accuracy(x_test, t_test)

layers = OrderedDict([('Affine1', Affine(0.01 * np.random.randn(784, 9), np.zeros(9))), ('Relu1', Relu()),
                      ('Affine2', Affine(0.01 * np.random.randn(9, 10), np.zeros(10)))])
x, last = x_test, SoftmaxWithLoss()
for layer in layers.values():
    x = layer.forward(x)
own_loss, same = last.forward(x, t_test), cross_entropy_error(softmax(x), t_test)
"""

TRAINING = """
from dataset.mnist import load_mnist
from common.multi_layer_net import MultiLayerNet
from common.multi_layer_net_extend import MultiLayerNetExtend
from common.optimizer import *
from common.trainer import Trainer
from common.util import shuffle_dataset, smooth_curve

(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)
x_train, t_train = shuffle_dataset(x_train, t_train)
network = MultiLayerNet(input_size=784, hidden_size_list=[50, 50], output_size=10)
optimizers = {'SGD': SGD(), 'Momentum': Momentum(), 'AdaGrad': AdaGrad(), 'Adam': Adam(), 'RMSprop': RMSprop()}
for optimizer in optimizers.values():
    optimizer.update(network.params, network.gradient(x_train[:100], t_train[:100]))
network = MultiLayerNetExtend(784, [50], 10, use_dropout=True, dropout_ration=0.2, use_batchnorm=True)
trainer = Trainer(network, x_train, t_train, x_test, t_test, epochs=12, mini_batch_size=100,
                  optimizer='sgd', optimizer_param={'lr': 0.1}, verbose=False)
trainer.train()
smooth = smooth_curve(trainer.train_loss_list)
"""


@pytest.fixture
def run(installed, mnist, monkeypatch):
    """run(script): what it leaves; as each is a script of its own, in a folder of chapter 5."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def execute(script):
        np.random.seed(0)
        namespace = {}
        exec(compile(script, "<script>", "exec"), namespace)
        return namespace

    return execute


def test_chapter_4(run):
    assert run(TWO_LAYER_NET)["worst"] < 1e-6  # the 1e-7 in the logarithm is not in the gradient
    expected = [[0.21924763, 0.14356247, -0.36281009], [0.32887144, 0.2153437, -0.54421514]]
    np.testing.assert_allclose(run(SIMPLE_NET)["dW"], expected, atol=1e-6, err_msg="as printed in 4.4.2")


def test_chapter_5(run):
    found = run(LAYERS)
    assert found["loss"] < 0.5
    assert found["accuracy"] > 0.9
    assert found["own_loss"] == found["same"]


def test_chapter_6(run):
    found = run(TRAINING)
    assert found["trainer"].test_acc_list[-1] > 0.9
    assert len(found["smooth"]) == len(found["trainer"].train_loss_list) == 36


FUNCTIONS = "np sigmoid sigmoid_grad relu relu_grad softmax identity_function step_function sum_squared_error"
FUNCTIONS += " cross_entropy_error softmax_loss"
OF_LAYERS = f"{FUNCTIONS} Affine Relu Sigmoid SoftmaxWithLoss BatchNormalization Dropout"
OF_LAYERS += " Convolution Pooling im2col col2im"
NETS = f"{OF_LAYERS} sys os OrderedDict numerical_gradient"
OPTIMIZERS = "np SGD Momentum Nesterov AdaGrad RMSprop Adam"
#: What `from MODULE import *` brings in the book's repository of 2023, read from its modules.
STARRED = {
    "common.functions": FUNCTIONS,
    "common.gradient": "np numerical_gradient numerical_gradient_2d",
    "common.layers": OF_LAYERS,
    "common.multi_layer_net": f"{NETS} MultiLayerNet",
    "common.multi_layer_net_extend": f"{NETS} MultiLayerNetExtend",
    "common.optimizer": OPTIMIZERS,
    "common.trainer": f"{OPTIMIZERS} sys os Trainer",
    "common.util": "np smooth_curve shuffle_dataset conv_output_size im2col col2im",
    "dataset.mnist": "np os gzip pickle urllib url_base key_file dataset_dir save_file train_num test_num img_dim"
    " img_size download_mnist init_mnist load_mnist",
    "two_layer_net": f"{NETS} TwoLayerNet",
}
OURS = {"Tanh", "mean_squared_error"}  # which the book only draws, and which its first printings had


@pytest.mark.parametrize("module", STARRED)
def test_star_imports_bring_what_the_book_brings_and_no_more(installed, module):
    namespace = {}
    exec(f"from {module} import *", namespace)
    assert set(namespace) - OURS == {"__builtins__", *STARRED[module].split()}


@pytest.mark.parametrize("module", [module for module in STARRED if "im2col" in STARRED[module].split()])
def test_what_a_star_import_cannot_bring_says_so_when_used(installed, module):
    namespace = {}
    exec(f"from {module} import *", namespace)
    for name in {"Convolution", "Pooling", "im2col", "col2im"} & set(namespace):
        with pytest.raises(ImportError, match=rf"^common\.\w+\.{name}: fcnet has what is about fully"):
            exec(f"{name}(1, 2, stride=1)", namespace)
        with pytest.raises(ImportError, match="fully connected nets"):
            exec(f"class Mine({name}): pass", namespace)


def test_init_mnist_fetches(installed, monkeypatch):
    fetched = []
    monkeypatch.setattr("fcnet.compat.dlfs.dataset.mnist.fetch", fetched.append)
    exec("from dataset.mnist import *; init_mnist(); download_mnist()", {})
    assert fetched == ["mnist", "mnist"]


SCRIPT = """
import sys
from common.layers import *
from two_layer_net import TwoLayerNet
from neighbour import here
print(__name__, sys.argv, __file__)
print(TwoLayerNet.__module__, here, Affine.__module__)
"""


def test_a_script_is_run_with_install_ahead_of_it(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "neighbour.py").write_text("here = 'found'\n")
    command = [sys.executable, "-m", "fcnet.compat.dlfs", "script.py", "--depth", "3"]
    path = os.pathsep.join([str(Path(fcnet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == [
        f"__main__ ['{tmp_path / 'script.py'}', '--depth', '3'] {tmp_path / 'script.py'}",
        "fcnet.compat.dlfs.two_layer_net found fcnet.compat.dlfs.layers",
        "",
    ]


def test_the_modules_are_these_and_not_copies(installed):
    import common.layers
    import common.trainer
    import dataset.mnist

    assert common is dlfs
    assert common.layers is sys.modules["fcnet.compat.dlfs.layers"]
    assert common.trainer.Trainer is dlfs.Trainer
    assert dataset.mnist.load_mnist is load_mnist
    dlfs.install()  # twice does no harm
    for name in dlfs.__all__:
        assert callable(getattr(dlfs, name)), name


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("from common.util import im2col", "common.util.im2col"),
        ("from common.layers import Convolution", "common.layers.Convolution"),
        ("from common.layers import Affine, Pooling", "common.layers.Pooling"),
        ("from common.simple_convnet import SimpleConvNet", "common.simple_convnet"),
        ("import dataset.cifar", "dataset.cifar"),
    ],
)
def test_what_is_not_about_fully_connected_nets_says_so(installed, statement, name):
    with pytest.raises(ImportError) as caught:
        exec(statement)
    assert str(caught.value) == (
        f"{name}: fcnet has what is about fully connected nets, not this; "
        "use the course's own file, in a session without install()"
    )


def test_a_mistyped_name_is_an_ordinary_error(installed):
    with pytest.raises(AttributeError, match=r"module 'common\.util' has no attribute 'smoth_curve'"):
        dlfs.util.smoth_curve  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'smoth_curve'"):
        exec("from common.util import smoth_curve")


def test_a_readers_own_two_layer_net_stays(no_course, tmp_path, monkeypatch):
    (tmp_path / "two_layer_net.py").write_text("TwoLayerNet = 'my own'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    dlfs.install()
    assert import_module("two_layer_net").TwoLayerNet == "my own"


@pytest.mark.parametrize("name", ["common", "dataset"])
def test_install_refuses_to_replace_a_package_already_imported(no_course, name):
    other = types.ModuleType(name)
    other.__file__ = f"book/{name}/__init__.py"
    sys.modules[name] = other
    with pytest.raises(ImportError, match=rf"expected no other {name} to be imported, got the one in book/{name}/__in"):
        dlfs.install()
    assert sys.modules[name] is other
    assert not {"common.layers", "dataset.mnist"} & set(sys.modules)
