"""``gpunn report``: one page about a saved network."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from gpunn.cli.console import Console
from gpunn.cli.measured import Measured, Source, samples_to_measure
from gpunn.cli.options import add_data, add_delimiter, add_device, add_json, add_model, files_of
from gpunn.cli.saved_network import load
from gpunn.data.files import FilePath
from gpunn.errors import counted
from gpunn.model_file import check_writable
from gpunn.network import Network
from gpunn.reports.findings import find
from gpunn.reports.report import check_packages, make_report
from gpunn.training.callbacks import History


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn report``."""
    parser.description = (
        "Write one HTML page about a saved network: how it was trained and, if there are data, "
        "where it is right and wrong. If the data have a test part, only that part is used. Needs "
        "matplotlib and Jinja2: pip install 'gpunn[report]'."
    )
    add_model(parser)
    add_data(parser, optional=True)
    add_delimiter(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="the page to write")
    add_device(parser)
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Measure a model, if there are data, and write what was found."""
    check_packages()
    check_writable(options.out, options.model, *files_of(options.data))
    network = load(options, console)
    measured = None
    if options.data is not None:
        measured = samples_to_measure(Source.of(options), network, console)
    n_samples = write_report(network, None, measured, Path(options.model).name, options.out)
    result = {"device": network.backend.name, "samples": n_samples, "out": options.out}
    text = f"wrote {options.out}"
    if measured is not None:
        text += f", measured on {counted(n_samples or 0, 'sample')} of {measured.about(network)}"
    console.report(text, result)
    return 0


def write_report(
    network: Network, history: History | None, measured: Measured | None, title: str, out: FilePath
) -> int | None:
    """Write a report, and return on how many samples the network was measured.

    Parameters
    ----------
    network : Network
        The network.
    history : History or None
        Its training; None to look in its record.
    measured : Measured or None
        The samples to measure it on.
    title : str
        What the network is called.
    out : path
        The page.
    """
    if measured is None:
        make_report(network, history, None, title, "").save(out)
        return None
    findings = find(network, measured.parts(network))
    about = measured.about(network)
    make_report(network, history, findings, title, about, measured.sample_names).save(out)
    return findings.n_samples
