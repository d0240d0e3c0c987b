"""Train the textbooks' networks on MNIST and hold the results against the published figures.

    python scripts/reproduce.py --data-dir DIR      all recipes; DIR holds mnist/*-ubyte.gz
    python scripts/reproduce.py --recipe rashid     one of them; it may be given several times

Prints a table: published figure, ours, difference. Each recipe is trained as its source did it;
the figure of the recipe 'nielsen' is that of the best epoch, as its source reports it, and the
test set is looked at after each epoch for that alone. No figure is published for '3blue1brown'.
"""

import argparse
import sys

import numpy as np

from gpunn import evaluate, fit, load_dataset
from gpunn.data.scaling import Scaling
from gpunn.recipes import RECIPES, Recipe


def run(recipe: Recipe, data_dir: str | None, device: str, seed: int) -> tuple[float, float, float]:
    """Return the best and the last epoch's test accuracy, and the training's seconds."""
    data = load_dataset("mnist", data_dir)
    assert data.test_inputs is not None
    assert data.test_labels is not None
    scaling = Scaling.to_range(
        0,
        255,
        recipe.input_low,
        recipe.input_high,
        target_low=recipe.target_low,
        target_high=recipe.target_high,
    )
    network = recipe.make_network(784, 10, device=device, seed=seed)
    network.scaling = scaling
    history = fit(
        network,
        scaling.apply(data.inputs[: recipe.n_train], np.float32),
        data.labels[: recipe.n_train],
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        shuffle=recipe.shuffle,
        seed=[seed, 1],
        validation_data=(scaling.apply(data.test_inputs, np.float32), data.test_labels),
    )
    last = evaluate(network, scaling.apply(data.test_inputs, np.float32), data.test_labels).accuracy
    assert last is not None
    return max(history.validation_accuracy), last, history.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder that holds mnist/")
    parser.add_argument("--device", default="auto", help="default: auto")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--recipe", choices=RECIPES, action="append", help="default: all")
    options = parser.parse_args()
    print("recipe         published    ours  difference   last epoch    seconds", flush=True)
    for name in options.recipe or RECIPES:
        recipe = RECIPES[name]
        best, last, seconds = run(recipe, options.data_dir, options.device, options.seed)
        ours = best if recipe.best_test_epoch else last
        published, difference = "-", "-"
        if recipe.published_accuracy is not None:
            published = f"{recipe.published_accuracy:.4f}"
            difference = f"{ours - recipe.published_accuracy:+.4f}"
        print(
            f"{name:<14}{published:>10}{ours:>8.4f}{difference:>12}{last:>13.4f}{seconds:>11.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
