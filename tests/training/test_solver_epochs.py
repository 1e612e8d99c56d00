"""Solver: which batches an epoch has, and what comes after one."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fcnet
from fcnet.training.batches import per_epoch
from tests.small import blobs, net, solver


class TestALoneLastSample:
    """Batch norm's deviation of one sample is 0: it joins the batch before."""

    def options(self, **changes):
        return {"batch_size": 32, "net_options": {"normalization": "batchnorm"}} | changes

    def test_every_sample_is_seen_once_and_the_epoch_ends(self, backend):
        one = solver(blobs(n=97), backend, **self.options())
        sizes = []
        while one.epoch == 0:
            sizes.append(one._batches.size)
            one.step()
        assert sizes == [32, 32, 33]
        plain = solver(blobs(n=97), backend, batch_size=32)
        for _ in range(4):
            plain.step()
        assert (plain.epoch, plain.steps) == (1, 4)

    def test_running_variances_are_those_of_the_data(self):
        one = solver(blobs(n=97), optim_config={"learning_rate": 0}, **self.options(preprocess="none"))
        for _ in range(90):
            one.step()
        z = one.data.X_train @ one.model.params["W1"].astype("float64")
        np.testing.assert_allclose(one.model.state["running_var1"] / z.var(axis=0), 1, atol=0.25)

    def test_schedules_and_progress_count_the_batches_there_are(self):
        one = solver(blobs(n=97), num_epochs=2, schedule="cosine", schedule_config={"per": "step"}, **self.options())
        one.train()
        assert one.steps == 6
        assert one.optimizer.learning_rate < 0.1 * one.first_learning_rate

    @pytest.mark.parametrize(("count", "batch_size"), [(97, 1), (1, 32)])
    def test_a_batch_of_one_is_refused(self, count, batch_size):
        normed = net(blobs(), normalization="batchnorm")
        with pytest.raises(
            ValueError, match=f"batch_size and normalization: .* got batch_size={batch_size} for {count}"
        ):
            per_epoch(normed, count, batch_size)
        with pytest.raises(ValueError, match="batch_size and normalization"):
            solver(blobs(), **self.options(batch_size=1))
        assert per_epoch(net(blobs(), normalization="layernorm"), count, batch_size) == count


def test_after_each_epoch_somebody_may_look_and_end_the_training():
    seen = []

    def look():
        seen.append((one.epoch, len(one.history)))
        if one.epoch == 2:
            raise KeyboardInterrupt

    one = solver(blobs(), num_epochs=5)
    one.after_epoch = look
    with pytest.raises(KeyboardInterrupt):
        one.train()
    assert seen == [(1, 1), (2, 2)]
    assert copy.deepcopy(one).after_epoch is None


def test_a_loss_that_is_nan_before_any_update_does_not_blame_the_rate():
    one = solver(blobs(), net_options={"reg": 1e39}, num_epochs=1)
    message = "at step 1: inputs, weights or a penalty are too large"
    with pytest.raises(fcnet.DivergedError, match=message):
        one.train()
