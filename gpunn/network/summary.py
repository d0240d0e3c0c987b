"""A network in a notebook: a table of its layers."""

from collections.abc import Sequence
from html import escape

from gpunn.network.architecture import Architecture


def layer_table(architecture: Architecture, heading: str) -> str:
    """Return a table of layers in HTML, from the inputs to the outputs.

    Parameters
    ----------
    architecture : Architecture
        What the network is.
    heading : str
        What stands over the table.
    """
    rows = [("inputs", f"{architecture.layer_sizes[0]:,}", "", "")]
    n_hidden = len(architecture.layer_sizes) - 2
    for index, (n_out, n_in, activation) in enumerate(architecture.layers()):
        name = "outputs" if index == n_hidden else f"hidden {index + 1}"
        n_parameters = n_out * (n_in + architecture.biases)
        rows.append((name, f"{n_out:,}", activation.name, f"{n_parameters:,}"))
    return html_table(heading, ("layer", "units", "activation", "parameters"), rows)


def html_table(heading: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table in HTML, with whatever texts in it."""

    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f"<table><caption>{escape(heading)}</caption><thead>{line(columns, 'th')}</thead>"
        f"<tbody>{body}</tbody></table>"
    )
