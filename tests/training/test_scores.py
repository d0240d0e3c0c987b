"""R^2 and errors of numbers, added up part by part."""

import numpy as np
import pytest

import gpunn
from gpunn.training.scores import NumberScorer


def scorer(n_targets):
    network = gpunn.Network([2, n_targets], output_activation="identity", device="cpu")
    network.output_scaling = gpunn.Scaling(np.full(n_targets, 3.0))
    return NumberScorer(network)


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_parts_give_what_the_whole_does(rng, mean):
    y = rng.normal(mean, 1, (90, 2))
    outputs = y + rng.normal(0, 0.5, y.shape)
    scored = scorer(2)
    for rows in (slice(7), slice(7, 8), slice(8, 90)):
        scored.add(outputs[rows], y[rows])
    errors = np.square(outputs - y)
    r2 = 1 - errors.sum(axis=0) / np.square(y - y.mean(axis=0)).sum(axis=0)
    np.testing.assert_allclose(scored.scores().r2_of_each, r2, rtol=1e-6)
    np.testing.assert_allclose(scored.scores().rmse_of_each, 3 * np.sqrt(errors.mean(axis=0)))


def test_numbers_that_are_all_the_same_have_no_r2(rng):
    for value in rng.normal(size=500):
        scored = scorer(2)
        y = np.column_stack([np.full(7, value), rng.normal(size=7)])
        for part in np.split(y, [3, 4]):
            scored.add(part + 0.1, part)
        constant, other = scored.scores().r2_of_each
        assert np.isnan(constant)
        assert scored.scores().r2 == other
