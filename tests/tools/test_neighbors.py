"""k-nearest neighbours against slow loops and scikit-learn, on every device, within its memory."""

import math
import tracemalloc

import numpy as np
import pytest

import fcnet
from tests.small import blobs, solver
from tests.tolerances import assert_close

N, M, D, C = 7, 40, 5, 4


def slow_distance(a, b, distance):
    """Of two rows of floats, by the definition."""
    differences = [abs(float(p) - float(q)) for p, q in zip(a, b, strict=True)]
    return math.fsum(differences) if distance == "l1" else math.sqrt(math.fsum(d * d for d in differences))


def slow_neighbors(x, known, k, distance):
    """Return the indices of the k nearest; Python's sort of pairs orders equal distances by index."""
    return [i for _, i in sorted((slow_distance(x, row, distance), i) for i, row in enumerate(known))[:k]]


def slow_vote(labels, classes):
    """How many votes each label has, and the winner: the smaller of equals."""
    votes = [sum(1 for label in labels if label == c) for c in range(classes)]
    return votes, votes.index(max(votes))


@pytest.fixture
def samples(rng):
    """Known samples and labels, and samples to classify: small whole numbers, so that distances are often equal."""
    return rng.integers(0, 3, (M, D)), np.concatenate([np.arange(C), rng.integers(C, size=M - C)]), (
        rng.integers(0, 3, (N, D))
    )  # fmt: skip


# Room for one sample at a time against a few, for several blocks of each, and for all at once.
MEMORY = [2500, 7000, 2**28]


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("k", [1, 4, M])
@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_it_finds_and_counts_as_a_slow_loop_does(backend, device, host, samples, distance, k, memory):
    """With ties in distances and in votes; whole numbers are exact, so everything must agree to the bit."""
    X, y, Q = samples
    memory = memory if k < M else max(memory, 8000)
    classifier = fcnet.KNearestNeighbors(k, distance=distance, memory=memory, device=backend)
    classifier.fit(X.astype("uint8"), y)
    distances, indices = classifier.kneighbors(device(Q, "uint8"))
    predicted, shares = classifier.predict(device(Q, "uint8")), classifier.predict_proba(device(Q, "uint8"))
    assert host(indices).tolist() == [slow_neighbors(q, X, k, distance) for q in Q]
    for n, q in enumerate(Q):
        near = slow_neighbors(q, X, k, distance)
        assert host(distances)[n].tolist() == [slow_distance(q, X[i], distance) for i in near]
        votes, winner = slow_vote(y[near], C)
        assert host(predicted)[n] == winner
        assert host(shares)[n].tolist() == [count / k for count in votes]


def test_equal_votes_go_to_the_smaller_label_and_equal_distances_to_the_lower_index(backend):
    X, y = np.array([[1.0], [-1.0], [1.0], [-1.0]]), np.array([2, 1, 0, 1])
    zero = np.zeros((1, 1))
    one, two = (fcnet.KNearestNeighbors(k, device=backend).fit(X, y) for k in (1, 2))
    assert one.predict(zero).tolist() == [2]  # sample 0 of four at the same distance
    assert two.kneighbors(zero)[1].tolist() == [[0, 1]]
    assert two.predict(zero).tolist() == [1]  # a vote each for 2 and 1


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_distances_of_real_numbers(backend, device, host, rng, dtype, distance):
    X, Y = rng.standard_normal((N, 2, D)), rng.standard_normal((M, 2, D))
    X, Y = X.astype(dtype), Y.astype(dtype)
    out = fcnet.pairwise_distances(device(X), device(Y), distance=distance, dtype=dtype)
    expected = [[slow_distance(x.ravel(), y.ravel(), distance) for y in Y] for x in X]
    assert_close(host(out), np.array(expected), dtype, "gemm")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_from_the_origin_no_digit_is_lost(backend, device, host, rng, dtype):
    """The expansion by itself would give 0 or noise here: 1e9² has no room for a difference of 1 (1e5² in float32)."""
    offset = 1e9 if dtype == "float64" else 1e5
    X, Y = (offset + rng.integers(-8, 8, (count, D)).astype(dtype) for count in (N, M))
    out = host(fcnet.pairwise_distances(device(X), device(Y), dtype=dtype))
    assert_close(out, np.array([[slow_distance(x, y, "l2") for y in Y] for x in X]), dtype, "norm")


def far_apart(rng, spread):
    """Two groups of ten, far from each other and each within `spread`; labels tell their halves apart."""
    centres = np.array([[-1e9, 3e8, 1.0], [2e9, -1e8, 1.0]])
    side = np.tile([-1.0, 1.0], 10)[:, None]
    y = np.arange(20) // 10 * 2 + (side[:, 0] > 0)
    return centres[np.arange(20) // 10] + spread * (4 * side + rng.uniform(-1, 1, (20, 3))), y.astype(int)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("spread", [1.0, 1e-2])
def test_groups_far_apart_keep_their_own_neighbours(distance, spread, backend, device, host, rng):
    """Measured from anywhere, squares of 1e18 have no digits left for distances of 1."""
    known, y = far_apart(rng, spread)
    asked = known + spread * rng.uniform(-0.5, 0.5, known.shape)
    model = fcnet.KNearestNeighbors(k=3, distance=distance, device=backend).fit(known, y)
    distances, indices = model.kneighbors(asked)
    for row, (found, lengths) in zip(asked, zip(indices, distances, strict=True), strict=True):
        assert found.tolist() == slow_neighbors(row, known, 3, distance)
        expected = [slow_distance(row, known[i], distance) for i in found]
        np.testing.assert_allclose(lengths, expected, rtol=1e-4)  # the samples themselves have that many digits
    between = host(fcnet.pairwise_distances(device(asked), device(known), distance=distance))
    expected = [[slow_distance(a, b, distance) for b in known] for a in asked]
    np.testing.assert_allclose(between, expected, rtol=1e-4)


def test_a_sample_far_off_leaves_the_others_their_digits(backend, device, host, dtype):
    """Measured from a mean that it draws away, they would fall together."""
    known = device(np.array([[0.0], [1.0], [3.0], [2e8]]), dtype)
    between = host(fcnet.pairwise_distances(known, known, distance="l1", dtype=dtype))
    np.testing.assert_array_equal(between[:3, :3], [[0, 1, 3], [1, 0, 2], [3, 2, 0]])


def test_a_point_is_at_no_negative_distance_from_itself(backend, device, host, rng):
    X = rng.standard_normal((50, 300)).astype("float32")
    squares = host(fcnet.pairwise_distances(device(X), device(X), dtype="float32")) ** 2
    assert np.isfinite(squares).all()  # the root of a negative number is NaN
    assert np.diag(squares).max() < 1e-3  # against 600 elsewhere


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scikit_learn_agrees(rng, distance, dtype):
    neighbors = pytest.importorskip("sklearn.neighbors")
    data = blobs(n=400, d=9, c=5)
    theirs = neighbors.KNeighborsClassifier(7, p={"l1": 1, "l2": 2}[distance], algorithm="brute")
    theirs.fit(data.X_train, data.y_train)
    mine = fcnet.KNearestNeighbors(7, distance=distance, dtype=dtype, memory=40_000, device="cpu")
    mine.fit(data.X_train, data.y_train)
    for ours, expected in zip(mine.kneighbors(data.X_test), theirs.kneighbors(data.X_test), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    np.testing.assert_array_equal(mine.predict(data.X_test), theirs.predict(data.X_test))
    np.testing.assert_allclose(mine.predict_proba(data.X_test), theirs.predict_proba(data.X_test))


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("width", "count", "queries"), [(4, 5000, 300), (400, 600, 130)])
def test_the_work_stays_within_its_memory(rng, distance, dtype, width, count, queries):
    """Of which it must also make use: a bound of ten times the truth would be no bound."""
    kind = "uint8" if width == 4 else "float64"  # float64 is rounded to float32 on the way
    X, y, memory = rng.integers(0, 256, (count, width)).astype(kind), np.arange(count) % 10, 1_000_000
    classifier = fcnet.KNearestNeighbors(9, distance=distance, dtype=dtype, memory=memory, device="cpu").fit(X, y)
    tracemalloc.start()
    try:
        classifier.predict(X[:queries])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory / 4 < peak < memory + 40_000  # the results, and NumPy's buffers for casting


def test_nothing_on_the_device_is_read_but_the_labels_in_fit(guard, samples):
    X, y, Q = samples
    classifier = fcnet.KNearestNeighbors(3, device=guard).fit(X, y)
    Q = guard.asarray(Q)
    with guard.no_waits():
        predicted = classifier.predict(Q)
    assert predicted.shape == (N,)


def test_results_are_where_the_samples_are(backend, device, samples):
    X, y, Q = samples
    for known in (X, device(X)):
        classifier = fcnet.KNearestNeighbors(3, device=backend).fit(known, np.eye(C)[y])
        assert isinstance(classifier.predict(Q), np.ndarray)
        assert backend.owns(classifier.predict(device(Q)))
        assert (classifier.num_classes, classifier.device) == (C, backend.name)
    assert classifier.predict(Q.reshape(N, 1, D)).tolist() == classifier.predict(Q).tolist()


@pytest.mark.parametrize("kind", ["float32", "float16", "bool", "int64", "uint8"])
def test_any_real_dtype_is_kept_and_understood(backend, host, samples, kind):
    X, y, Q = samples
    X, Q = (X > 0, Q > 0) if kind == "bool" else (X, Q)
    classifier = fcnet.KNearestNeighbors(2, device=backend).fit(X.astype(kind), y.astype("uint8"))
    assert classifier.kneighbors(Q.astype(kind))[1].tolist() == [slow_neighbors(q, X, 2, "l2") for q in Q]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X, y: fcnet.KNearestNeighbors(0), "k: expected 1 or more, got 0"),
        (lambda X, y: fcnet.KNearestNeighbors(distance="l3"), "distance: expected one of l1, l2; got 'l3'"),
        (lambda X, y: fcnet.KNearestNeighbors(dtype="int8"), "dtype: expected one of float32, float64"),
        (lambda X, y: fcnet.KNearestNeighbors(M + 1).fit(X, y), f"X: expected at least k = {M + 1} samples, got {M}"),
        (lambda X, y: fcnet.KNearestNeighbors(memory=99).fit(X, y), r"memory: expected at least \d+ bytes .* got 99"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(X, y[:-1]), f"y: expected {M} labels"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(X, y - 1), r"y: expected labels of 0 or more, got -1 at \d; re"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(X, y / 1), "y: expected integer labels"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(list(X), y), "X: expected an array, got list"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(X[:, :0], y), "X: expected at least one feature per sample"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(X, y).predict(X[:, 1:]), "X: expected 5 .*, as in fit, got 4"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(X * np.nan, y), "X: expected finite numbers"),
        (lambda X, y: fcnet.KNearestNeighbors().fit(X * 1e200, y), "whose squared distances float64 can hold"),
        (
            lambda X, y: fcnet.KNearestNeighbors().fit(X * 1e-160, y),
            "float64 can hold, .* by .*e-16.* multiply the data",
        ),
        (
            lambda X, y: fcnet.pairwise_distances(X * 1e-20, X * 1e-20, dtype="float32"),
            "X and Y: .* squared distances float32 can hold, .* multiply the data by a constant or use dtype='float64'",
        ),
        (lambda X, y: fcnet.KNearestNeighbors().predict(X), r"expected fit\(X, y\) before this call"),
        (lambda X, y: fcnet.pairwise_distances(X, X[:, 1:]), "X: expected 4 .*, as in Y, got 5.*columns$"),
        (lambda X, y: fcnet.pairwise_distances(X, X, distance="l"), "distance: expected one of l1, l2"),
    ],
)
def test_mistakes_are_named(samples, call, message):
    X, y, _ = samples
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        call(X, y)


@pytest.mark.parametrize("loss", ["softmax", "svm"])
def test_a_linear_classifier_is_a_net_without_hidden_layers(backend, loss):
    data = blobs(n=300)
    linear = solver(
        data,
        backend,
        net_options={"hidden": (), "loss": loss, "reg": 1e-3},
        update_rule="momentum",
        num_epochs=10,
    )
    linear.train()
    assert set(linear.model.params) == {"W1", "b1"}
    scores = linear.model.scores(data.X_test)
    to_numpy = backend.to_numpy
    by_hand = data.X_test @ to_numpy(linear.model.params["W1"]).astype(float) + to_numpy(linear.model.params["b1"])
    np.testing.assert_allclose(scores, by_hand, rtol=1e-4, atol=1e-4)
    assert linear.check_accuracy(data.X_test, data.y_test) > 0.9
