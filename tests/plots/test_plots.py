"""Plots: what is drawn are the numbers, on axes of the caller's or new ones."""

import numpy as np
import pytest

import gpunn
from gpunn import History, Network, Stream, cli
from gpunn.errors import DataError, ParameterError
from gpunn.plots.figures import as_svg, check_picture_name, literal, new_figure
from gpunn.training.callbacks import EpochRecord

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def history(*accuracies, best_epoch=None):
    records = [
        EpochRecord(k, 1 / k, None if a is None else 2 / k, a, 0.1, 1.0)
        for k, a in enumerate(accuracies, 1)
    ]
    return History(records, best_epoch=best_epoch)


def lines(axis):
    return {line.get_label(): line.get_xydata().T.tolist() for line in axis.get_lines()}


def test_a_history_is_drawn_as_it_is():
    loss, accuracy = history(0.5, 0.8, 0.7, best_epoch=2).plot()
    assert lines(loss)["training"] == [[1, 2, 3], [1, 1 / 2, 1 / 3]]
    assert lines(loss)["validation"] == [[1, 2, 3], [2, 1, 2 / 3]]
    assert lines(accuracy)["validation"] == [[1, 2, 3], [0.5, 0.8, 0.7]]
    assert lines(accuracy)["best epoch"][0] == [2, 2]


def test_a_history_without_validation_has_one_plot_and_takes_axes():
    axis = new_figure((3, 3)).subplots()
    assert history(None, None).plot(axis) == [axis]
    assert list(lines(axis)) == ["training"]
    with pytest.raises(ParameterError, match="expected 2 axes to draw on, got 1"):
        history(0.5).plot(axis)


def test_a_loss_that_is_not_finite_leaves_a_gap():
    records = [EpochRecord(k, loss, None, None, 0.1, 1) for k, loss in ((1, 0.5), (2, np.inf))]
    (axis,) = History(records).plot()
    np.testing.assert_array_equal(lines(axis)["training"][1], [0.5, np.nan])


def test_an_evaluation_of_classes_is_a_confusion_matrix(rng):
    network = Network([4, 3], output_activation="softmax", loss="cross_entropy", device="cpu")
    network.class_labels = ["a$b$", "<b>", "c"]
    X, y = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)
    (axis,) = gpunn.evaluate(network, X, y).plot()
    texts = {text.get_position(): int(text.get_text()) for text in axis.texts}
    predicted = network.predict(X).argmax(axis=1)
    for row in range(3):
        for column in range(3):
            count = np.count_nonzero((y == row) & (predicted == column))
            assert texts.get((column, row), 0) == count
    assert [label.get_text() for label in axis.get_yticklabels()] == [r"a\$b\$", "<b>", "c"]
    targets = np.eye(3)[y]
    np.testing.assert_array_equal(gpunn.evaluate(network, X, targets).expected, y)


def test_an_evaluation_of_numbers_is_true_against_predicted(rng):
    network = Network([4, 1], output_activation="identity", device="cpu", dtype="float64")
    X, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 1))
    pairs, residuals = gpunn.evaluate(network, X, y).plot()
    predicted = network.predict(X)
    np.testing.assert_array_equal(pairs.collections[0].get_offsets(), np.hstack([y, predicted]))
    np.testing.assert_array_equal(
        residuals.collections[0].get_offsets(), np.hstack([predicted, y - predicted])
    )


def test_each_output_has_a_cloud_of_its_own(rng):
    network = Network([4, 2], output_activation="identity", device="cpu", dtype="float64")
    network.output_scaling = gpunn.Scaling()
    X, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    pairs, residuals = gpunn.evaluate(network, X, y).plot()
    predicted = network.predict(X)
    for k in range(2):
        cloud = np.column_stack([y[:, k], predicted[:, k]])
        np.testing.assert_array_equal(pairs.collections[k].get_offsets(), cloud)
        left_over = np.column_stack([predicted[:, k], y[:, k] - predicted[:, k]])
        np.testing.assert_array_equal(residuals.collections[k].get_offsets(), left_over)
    shown = [text.get_text() for text in pairs.get_legend().get_texts()]
    assert shown == ["output 1", "output 2"]


@pytest.mark.parametrize("axes", [3, "ax", [None], [[1, 2]]])
def test_what_is_no_axes_is_refused(axes):
    with pytest.raises(ParameterError, match="expected axes of matplotlib, got"):
        gpunn.History([EpochRecord(1, 0.5, None, None, 0.1, 1.0)]).plot(axes)


def test_a_history_without_epochs_is_empty_axes():
    (axis,) = gpunn.History().plot()
    assert not axis.get_lines()[0].get_xdata().size


def test_an_evaluation_of_a_stream_has_nothing_to_draw(rng):
    network = Network([4, 2], device="cpu")
    stream = Stream([(rng.normal(size=(8, 4)), np.arange(8) % 2)], 8)
    with pytest.raises(DataError, match="evaluate an array"):
        gpunn.evaluate(network, stream).plot()


def test_hidden_units_are_drawn_with_their_weights_around_zero(backend):
    network = Network([16, 9, 2], device=backend)
    axis = gpunn.plot_hidden_units(network, n_units=3, image_shape=(4, 4))
    (image,) = axis.get_images()
    low, high = image.get_clim()
    assert low == -high < 0
    weights = network.parameters()
    strength = np.square(weights["layers.1.weight"]).sum(axis=0)
    strongest = np.sort(np.argsort(-strength)[:3])
    assert [text.get_text() for text in axis.texts] == [f"unit {k}" for k in strongest]
    drawn = np.asarray(image.get_array())[-4:, :4]
    np.testing.assert_allclose(drawn.ravel(), weights["layers.0.weight"][strongest[0]])


def test_hidden_units_of_a_table_have_the_names_of_its_columns():
    network = Network([3, 5, 2], device="cpu")
    network.feature_names = ["age", "height", "$x$"]
    axis = gpunn.plot_hidden_units(network)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["age", "height", r"\$x\$"]
    (image, *_) = axis.get_images()
    np.testing.assert_array_equal(image.get_array(), network.parameters()["layers.0.weight"].T)
    assert gpunn.plot_hidden_units(Network([3, 2], device="cpu")).get_images()


def test_hidden_units_refuse_another_shape():
    network = Network([16, 9, 2], device="cpu")
    with pytest.raises(ParameterError, match="rows and columns of 16 pixels"):
        gpunn.plot_hidden_units(network, image_shape=(3, 4))
    for wrong in (5, (-4, -4), "ab", (16,), (2, 2, 4)):
        with pytest.raises(ParameterError, match="rows and columns of 16 pixels"):
            gpunn.plot_hidden_units(network, image_shape=wrong)
    with pytest.raises(ParameterError, match=r"must be a gpunn\.Network, got 'x'"):
        gpunn.plot_hidden_units("x")
    with pytest.raises(ParameterError, match="n_units"):
        gpunn.plot_hidden_units(network, n_units=0)


@pytest.mark.parametrize("text", ["$\\frac$", "</svg><script>", "a\x00b", "日本語", "$$", "\\$x$"])
def test_a_strangers_text_in_a_figure_stays_text(text):
    figure = new_figure((3, 2))
    figure.subplots().set_title(literal(text))
    svg = as_svg(figure, "x")
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert svg.count("</svg>") == 1


def test_two_figures_of_a_page_share_no_ids():
    def ids(name):
        import re

        figure = new_figure((3, 2))
        figure.subplots().plot([1, 2], [3, 4], marker="o")
        return set(re.findall(r'(?:id="|#)([mp]\w{10,})', as_svg(figure, name)))

    assert ids("a")
    assert not ids("a") & ids("b")


# Notebooks.


def test_a_notebook_shows_a_networks_layers():
    network = Network([4, 5, 6, 2], device="cpu", hidden_activation="relu")
    shown = network._repr_html_()
    for cells in (("inputs", "4"), ("hidden 1", "5", "relu", "25"), ("outputs", "2", "sigmoid")):
        assert "<td>" + "</td><td>".join(cells) in shown


def test_a_notebook_shows_a_history():
    shown = history(0.5, 0.8, 0.7, best_epoch=2)._repr_html_()
    assert "<td>best</td><td>2</td><td>0.5</td><td>1</td><td>0.8</td>" in shown
    assert shown.count("<svg") == 2
    hostile = History([EpochRecord(1, float("nan"), None, None, 0.1, 1)], stopped="<script>")
    assert "<script" not in hostile._repr_html_()
    assert "<table>" in History()._repr_html_()


def test_a_picture_has_an_ending_that_can_be_written(capsys):
    for name in ("a.png", "b.SVG", "folder/c", "d.pdf"):
        check_picture_name(name)
    assert cli.main(["parity", "--device", "cpu", "--against", "float64", "--out", "z.xyz"]) == 2
    assert capsys.readouterr().err == (
        "gpunn: error: z.xyz: no picture can have the ending .xyz; expected .png, .pdf, .svg or "
        "another of matplotlib's\n"
    )
