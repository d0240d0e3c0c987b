"""The documentation site is built strictly, is complete, and needs nothing from elsewhere."""

import importlib.util
import json
import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import gpunn

ROOT = Path(__file__).parents[1]
NEEDED = ("mkdocs", "material", "mkdocstrings", "latex2mathml", "ziamath", "jupytext", "nbconvert")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install -e '.[docs]'"
)


class Page(HTMLParser):
    """What a page loads, where its links lead, what they may lead to, and its formulas."""

    def __init__(self, path):
        super().__init__()
        self.path, self.loaded, self.links, self.names, self.n_formulas = path, [], [], set(), 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names.add(found.get("id"))
        self.n_formulas += tag == "math"
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("next", "prev"):
            self.loaded.append(found.get("href"))
        elif tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}


def test_nothing_comes_from_elsewhere(site, pages):
    for name, page in pages.items():
        if name == "404.html":  # the one page that is only shown by a server
            continue
        for address in page.loaded:
            target = page.path.parent / address.partition("?")[0]
            assert address.startswith("data:") or target.resolve().is_relative_to(site), address
            assert address.startswith("data:") or target.exists(), (name, address)
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"url\(\W?(?:https?:)?//|@import", text), path


def test_every_page_is_reached_from_the_home_page(pages):
    reached, waiting = set(), {"index.html"}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        links = {link.partition("#")[0] for link in pages[name].links if ":" not in link}
        targets = {posixpath.normpath(f"{posixpath.dirname(name)}/{link}") for link in links}
        waiting |= {target.removeprefix("/") for target in targets} & pages.keys() - reached
    assert reached == pages.keys() - {"404.html"}
    for path in ROOT.glob("docs/**/*.md"):
        page = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert page.replace("README", "index") in reached


def test_formulas_are_drawn(pages):
    source = (ROOT / "docs" / "mathematics.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", source, flags=re.MULTILINE | re.DOTALL)
    n_alone = prose.count("$$") // 2
    n_inline = prose.replace("$$", "").count("$") // 2
    assert n_alone >= 20
    assert pages["mathematics.html"].n_formulas == n_alone + n_inline
    for page in pages.values():
        assert "arithmatex" not in page.path.read_text(encoding="utf-8")


def test_the_reference_has_every_public_name(pages):
    names = set().union(*(page.names for name, page in pages.items() if "reference/" in name))
    public = {f"gpunn.{name}" for name in gpunn.__all__ if name != "__version__"}
    assert public <= names
    assert {"gpunn.estimators.MLPClassifier", "gpunn.testing.assert_parity"} <= names
    assert {"gpunn.Network.predict", "gpunn.ThreeLayerNetwork.backquery"} <= names


def test_every_command_is_on_the_page_of_options(pages):
    assert {"gpunn-train", "gpunn-predict", "gpunn-info"} <= pages["reference/options.html"].names


def test_the_notebook_has_its_pictures_and_can_be_opened(site, pages):
    pictures = [address for address in pages["notebook.html"].loaded if "notebook/" in address]
    assert len(pictures) >= 6
    notebook = json.loads((site / "notebook.ipynb").read_text(encoding="utf-8"))
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    assert sum("image/png" in o.get("data", ()) for o in outputs) == len(pictures)
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


def test_the_search_finds_words_from_the_disk(site):
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    found = {
        entry["location"] for entry in json.loads(index.removeprefix("var __index = "))["docs"]
    }
    assert {"tutorial.html", "mathematics.html#optimizers"} <= found


def test_a_browser_searches_from_the_disk_and_asks_nobody(site, browser):
    asked, complaints = [], []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((site / "mathematics.html").as_uri())
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    page.locator("label[for=__search]").first.click()
    page.locator("input[name=query]").press_sequentially("nesterov")
    page.locator(".md-search-result__link[href*='#optimizers']").wait_for(timeout=20_000)
    page.close()
    assert widths == [390, 390]
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
