"""What the documentation site has beside the pages in `docs`: a hook of MkDocs.

Pages that a machine writes are made here, so that each page in `docs` reads well by itself: the
reference from the docstrings, every option of the command line, the notebook with what it printed
and drew, and the two pages of the project's root. Formulas become MathML, which browsers draw
without a script.
"""

import html
import os
import re
import tempfile
from functools import cache
from importlib.resources import files as files_of
from pathlib import Path
from xml.etree import ElementTree

import jupytext
import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

from gpunn.cli.parser import make_parser

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.py"
MATHML = "http://www.w3.org/1998/Math/MathML"
ABOVE_AND_BELOW = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
FORMULA = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>'
FROM_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
ASSETS = [
    *(Path(__file__).with_name(name) for name in ("site.css", "logo.svg", "iframe-worker.js")),
    files_of("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf",
]
"""The looks, the search from the disk, and a font for formulas (SIL Open Font License)."""

REFERENCE = {
    "gpunn": ["gpunn"],
    "data": ["gpunn.data"],
    "training": ["gpunn.training"],
    "optimizers": ["gpunn.optimizers", "gpunn.schedules"],
    "formulas": ["gpunn.activations", "gpunn.losses", "gpunn.initializers"],
    "estimators": ["gpunn.estimators"],
    "interchange": ["gpunn.interchange"],
    "parity": ["gpunn.parity"],
    "testing": ["gpunn.testing"],
    "backends": ["gpunn.backends.select", "gpunn.backends.base"],
    "errors": ["gpunn.errors"],
}
"""The modules on each page of the reference."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made: dict[str, str | bytes] = {
        page: (ROOT / name).read_text(encoding="utf-8") for page, name in FROM_ROOT.items()
    }
    made |= {f"reference/{page}.md": _reference(names) for page, names in REFERENCE.items()}
    made["reference/options.md"] = _options()
    made |= _notebook(NOTEBOOK.read_text(encoding="utf-8"))
    made |= {path.name: path.read_bytes() for path in ASSETS}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links to the project's root, and from there, to pages of the site."""
    if page.file.src_uri.startswith("reference/"):
        page.meta["search"] = {"boost": 0.3}  # pages that people wrote come first
    for page_name, name in FROM_ROOT.items():
        markdown = re.sub(rf"\]\((\.\./)*{name}", f"]({page_name}", markdown)
    markdown = re.sub(r"\[(?:docs/)?(\w+)\.md\]\(", _without_ending, markdown)
    return markdown.replace("](docs/", "](").replace("](notebook.py)", "](notebook.md)")


def _without_ending(found: re.Match[str]) -> str:
    """Return a link's text without the name of a file, which the site does not have."""
    return f"[{found[1].replace('_', ' ').lower()}]("


def on_page_content(content: str, **_: object) -> str:
    """Turn formulas into MathML, and names of the library into links to the reference."""
    linked = re.sub(
        r"<code>((gpunn\.[\w.]+)(?:\(\))?)</code>(?!</a>)",
        r'<autoref identifier="\2" optional><code>\1</code></autoref>',
        content,
    )
    return re.sub(FORMULA, _formula, linked, flags=re.DOTALL)


def _formula(found: re.Match[str]) -> str:
    alone = found[1] == "div"
    drawn = convert(html.unescape(found[2]).strip(), display="block" if alone else "inline")
    ElementTree.register_namespace("", MATHML)
    formula = ElementTree.fromstring(drawn)
    for part in list(formula.iter()):
        _put_limits_below(part)
        _space_out(part)
    text = ElementTree.tostring(formula, encoding="unicode")
    return f'<div class="formula">{text}</div>' if alone else text


def _put_limits_below(part: ElementTree.Element) -> None:
    """Put what a sum goes over below it; browsers put it beside where lines are narrow."""
    kind = ABOVE_AND_BELOW.get(part.tag.removeprefix(f"{{{MATHML}}}"))
    if kind and part[0].text in ("\N{N-ARY SUMMATION}", "max"):
        part.tag = f"{{{MATHML}}}{kind}"


def _space_out(part: ElementTree.Element) -> None:
    """Put a narrow space between a factor and the name of a function, such as ln."""
    for place in range(len(part) - 1, 0, -1):
        name, before = part[place], part[place - 1]
        named = name.tag.endswith("}mi") and len(name.text or "") > 1
        if named and (before.text == ")" or not before.tag.endswith("}mo")):
            part.insert(place, ElementTree.Element(f"{{{MATHML}}}mspace", width="0.17em"))


def _reference(names: list[str]) -> str:
    if len(names) == 1:
        return f"::: {names[0]}"
    title = ", ".join(f"`{name}`" for name in names)
    blocks = (f"::: {name}\n    options: {{heading_level: 2}}" for name in names)
    return f"# {title}\n\n" + "\n\n".join(blocks)


def _options() -> str:
    """Return a page of what ``gpunn COMMAND --help`` says."""
    commands = make_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    texts = [f"## gpunn {name}\n\n```text\n{p.format_help()}```\n" for name, p in commands.items()]
    heading = "# Every option\n\nWhat `gpunn COMMAND --help` says. [The command line]"
    return heading + "(../command_line.md) has the rest.\n\n" + "\n".join(texts)


@cache
def _notebook(source: str) -> dict[str, str | bytes]:
    """Return the page, the pictures and the file of the notebook, run from its first cell on."""
    notebook = jupytext.reads(source, fmt="py:percent")
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        quiet = ["--log-level=40"]
        NotebookClient(notebook, timeout=120, resources=place, extra_arguments=quiet).execute()
    resources = {"unique_key": "notebook", "output_files_dir": "notebook"}
    text, found = MarkdownExporter().from_notebook_node(notebook, resources)
    link = "[Download this page as a Jupyter notebook](notebook.ipynb){ .md-button download }\n\n"
    text = re.sub(r"(?m)^(# .*\n)", rf"\1\n{link}", text, count=1)
    pictures = {name.replace(os.sep, "/"): data for name, data in found["outputs"].items()}
    return {"notebook.md": text, "notebook.ipynb": nbformat.writes(notebook), **pictures}
