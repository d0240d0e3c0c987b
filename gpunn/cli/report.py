"""``gpunn report``: one page about a saved network."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from gpunn.cli.console import Console
from gpunn.cli.measured import samples_to_measure
from gpunn.cli.options import add_data, add_delimiter, add_device, add_json, add_model, files_of
from gpunn.cli.saved_network import load
from gpunn.model_file import check_writable
from gpunn.reports.findings import find
from gpunn.reports.report import check_packages, make_report


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
    findings, data = None, ""
    if options.data is not None:
        measured = samples_to_measure(options, network, console)
        findings = find(network, measured.parts(network))
        data = f"{measured.name}, {measured.part}"
        if caution := measured.caution(network):
            data += f": {caution}"
    make_report(network, None, findings, Path(options.model).name, data).save(options.out)
    n_samples = None if findings is None else findings.n_samples
    result = {"device": network.backend.name, "samples": n_samples, "out": options.out}
    about = "" if n_samples is None else f", measured on {n_samples:,} samples of {data}"
    console.report(f"wrote {options.out}{about}", result)
    return 0
