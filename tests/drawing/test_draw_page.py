"""The page to draw on, in a real browser: by mouse, touch and keyboard, and with hostile models."""

import base64
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_for import made, predicted
from strokes import strokes_of

from gpunn import Network, Scaling, fit, load_dataset
from gpunn.data.picture_fields import BOX, place
from gpunn.drawing.page import draw_page
from gpunn.schedules import cosine

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the page of a network from a file, and check at the end that it was a quiet page.

    Nothing may have been asked for but the file itself, and nothing may have been said or thrown.
    """
    contexts, heard = [], []

    def open_page(network: Network, **options: Any) -> Any:
        file = tmp_path / "draw.html"
        file.write_text(draw_page(network), "utf-8")
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        for event in ("console", "pageerror", "dialog", "request", "popup"):
            page.on(event, lambda what, event=event: heard.append((event, what)))
        page.goto(file.as_uri())
        return page

    yield open_page
    noise = [
        (event, str(what))
        for event, what in heard
        if event != "request" or not what.url.startswith(tmp_path.as_uri())
    ]
    for context in contexts:
        context.close()
    assert noise == []


@pytest.fixture(scope="session")
def mnist(mnist_dir: Path) -> Any:
    """Real MNIST."""
    return load_dataset("mnist", data_dir=mnist_dir.parent)


@pytest.fixture(scope="session")
def mnist_network(mnist: Any) -> Network:
    """A network that is right on 98 % of MNIST's test digits.

    It has seen each digit at five places, so it is sure of most of them.
    """
    network = Network(
        [784, 200, 10],
        hidden_activation="relu",
        output_activation="softmax",
        loss="cross_entropy",
        device="cpu",
        seed=1,
    )
    network.scaling = Scaling.to_range(0, 255)
    digits = np.reshape(mnist.inputs, (-1, 28, 28))
    places = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]
    X = np.concatenate([np.roll(digits, move, (1, 2)) for move in places]).reshape(-1, 784)
    fit(
        network,
        network.scaling.apply(X, "float32"),
        np.tile(mnist.labels, len(places)),
        epochs=1,
        batch_size=100,
        optimizer="adam",
        learning_rate=cosine(0.002, epochs=1),
        dropout=0.2,
        seed=1,
    )
    network.training_record = {"data": "mnist", "image_shape": [28, 28], "value_range": [0, 255]}
    return network


def expect_text(page: Any, selector: str, text: str | re.Pattern[str] | list[str]) -> None:
    """Wait for texts; in Playwright's way that needs no `eval`, which the page forbids."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text)


def paper_of(page: Any) -> Any:
    """Return the ink on the paper as grey levels."""
    texts = page.evaluate(
        """() => {
          const { width, height } = paper;
          const { data } = paper.getContext("2d").getImageData(0, 0, width, height);
          let text = "";
          for (let k = 3; k < data.length; k += 4) text += String.fromCharCode(data[k]);
          return [String(height), String(width), btoa(text)];
        }"""
    )
    return from_base64(texts[2]).reshape(int(texts[0]), int(texts[1]))


def from_base64(text: str) -> Any:
    """Return bytes that came from a page."""
    return np.frombuffer(base64.b64decode(text), np.uint8)


def to_base64(values: Any) -> str:
    """Return grey levels as a text, in which they go to a page fastest."""
    return base64.b64encode(np.asarray(values, np.uint8).tobytes()).decode()


def check_answer(page: Any, network: Network, label: str) -> None:
    """Check that the page shows a label, and the outputs that `predict` gives for what it sees."""
    expect_text(page, "#best", label)
    page.evaluate(
        "new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))"
    )
    seen = page.evaluate("gpunn.seen()")
    outputs = predicted(network, seen["picture"])[0]
    np.testing.assert_allclose(seen["outputs"], outputs, rtol=0, atol=1e-5)
    assert page.locator("#bars .best .label").text_content() == label
    shown = [float(text) for text in page.locator("#bars .value").all_text_contents()]
    np.testing.assert_allclose(shown, outputs, rtol=0, atol=6e-4)
    field = place(paper_of(page), (28, 28), BOX, "paper").values
    assert np.abs(field.astype(int) - np.reshape(seen["picture"], (28, 28))).max() <= 1


def wait_for_answer(page: Any) -> None:
    """Wait until the network has answered: it does so with the next picture of the screen."""
    page.wait_for_function("() => gpunn.seen().outputs !== null")


def dot(page: Any, x: float, y: float) -> None:
    """Put a dot on the paper, at parts of its width and height."""
    box = page.locator("#paper").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def digits_to_draw(mnist: Any, network: Network, n: int) -> Iterator[tuple[str, Any]]:
    """Yield digits 0 to 9, the first n of each that the network knows, as labels and pictures."""
    known = predicted(network, mnist.test_inputs[:500]).argmax(axis=1) == mnist.test_labels[:500]
    for label in range(10):
        for row in np.flatnonzero(known & (mnist.test_labels[:500] == label))[:n]:
            yield str(label), np.reshape(mnist.test_inputs[row], (28, 28))


def places_of(page: Any, stroke: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """Return where in the window every third pixel of a stroke, and its last, is on the paper."""
    box = page.locator("#paper").bounding_box()
    return [
        (box["x"] + (x + 0.5) / 28 * box["width"], box["y"] + (y + 0.5) / 28 * box["height"])
        for y, x in [*stroke[:-1:3], stroke[-1]]
    ]


def test_digits_drawn_with_the_mouse(opened, mnist, mnist_network):
    page = opened(mnist_network)
    for label, picture in digits_to_draw(mnist, mnist_network, 1):
        for stroke in strokes_of(picture):
            places = places_of(page, stroke)
            page.mouse.move(*places[0])
            page.mouse.down()
            for point in places[1:]:
                page.mouse.move(*point)
            page.mouse.up()
        check_answer(page, mnist_network, label)
        page.get_by_role("button", name="Clear").click()
        expect_text(page, "#best", "–")


def test_digits_drawn_with_a_finger_on_a_phone(opened, mnist, mnist_network):
    page = opened(mnist_network, **PHONE)
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    touch = page.context.new_cdp_session(page)

    def send(kind, *point):
        points = [dict(zip("xy", point, strict=True))] if point else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for label, picture in [*digits_to_draw(mnist, mnist_network, 1)][::3]:
        for stroke in strokes_of(picture):
            first, *others = places_of(page, stroke)
            send("touchStart", *first)
            for point in others:
                send("touchMove", *point)
            send("touchEnd")
        check_answer(page, mnist_network, label)
        assert page.evaluate("scrollY") == 0
        page.get_by_role("button", name="Clear").click()
        expect_text(page, "#best", "–")


def test_digits_drawn_with_the_keyboard(opened, mnist, mnist_network):
    page = opened(mnist_network)
    while page.evaluate("document.activeElement.id") != "paper":
        page.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(style) == "solid"
    assert page.locator("#cursor").is_visible()
    at = [14, 14]

    def go(y, x, modifier=""):
        for axis, target, keys in ((0, y, ("Up", "Down")), (1, x, ("Left", "Right"))):
            while at[axis] != target:
                step = 1 if target > at[axis] else -1
                page.keyboard.press(f"{modifier}Arrow{keys[step > 0]}")
                at[axis] += step

    for label, picture in [*digits_to_draw(mnist, mnist_network, 1)][1::3]:
        for (y, x), *others in strokes_of(picture):
            go(y, x)
            page.keyboard.press("Space")
            for point in others:
                go(*point, "Shift+")
        check_answer(page, mnist_network, label)
        expect_text(page, "[role=status]", re.compile(f"^The answer is {label}, with the output "))
        page.keyboard.press("Delete")
        expect_text(page, "[role=status]", "The paper is empty.")
        expect_text(page, "#best", "–")


def test_a_thousand_digits_of_mnist_enlarged_on_the_paper(opened, mnist, mnist_network):
    page = opened(mnist_network)
    pictures = np.asarray(mnist.test_inputs[:1000])
    page.evaluate(
        """(text) => {
          const all = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
          window.pictures = [];
          for (let k = 0; k < all.length; k += 784) pictures.push(all.slice(k, k + 784));
        }""",
        to_base64(pictures),
    )
    fields, outputs = page.evaluate(
        """() => {
          const seen = pictures.map((picture) => (gpunn.showPicture(picture), gpunn.seen()));
          const fields = seen.flatMap(({ picture }) => picture);
          return [
            btoa(fields.map((grey) => String.fromCharCode(grey)).join("")),
            seen.flatMap(({ outputs }) => outputs).join(" "),
          ];
        }"""
    )
    fields = from_base64(fields).reshape(1000, 784)
    outputs = np.fromstring(outputs, sep=" ").reshape(1000, 10)
    np.testing.assert_allclose(outputs, predicted(mnist_network, fields), rtol=0, atol=1e-5)
    for picture, field in zip(pictures[:200], fields, strict=False):
        enlarged = picture.reshape(28, 28).repeat(16, axis=0).repeat(16, axis=1)
        expected = place(enlarged, (28, 28), BOX, "paper").values.reshape(-1)
        assert np.abs(expected.astype(int) - field).max() <= 1
    expected = predicted(mnist_network, pictures)
    assert (outputs.argmax(axis=1) == expected.argmax(axis=1)).sum() >= 995
    # Where the page is given the very pictures, its outputs are the very outputs.
    given = page.evaluate("pictures.map(gpunn.outputsOf).flat().join(' ')")
    given = np.fromstring(given, sep=" ").reshape(1000, 10)
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5)


def drawn_greys(mnist, page):
    """Yield pictures of many sizes, light and dark, with noise and without."""
    rng = np.random.default_rng(3)
    dot(page, 0.3, 0.2)
    dot(page, 0.4, 0.7)
    yield "two dots on the paper", paper_of(page)
    for k, (columns, rows) in enumerate([(83, 61), (200, 300), (20, 90), (9, 11), (28, 28)]):
        digit = Image.fromarray(np.reshape(mnist.test_inputs[k], (28, 28)).astype(np.uint8))
        sheet = Image.new("L", (2 * columns, 2 * rows))
        sheet.paste(digit.resize((columns, rows), Image.Resampling.BILINEAR), (columns // 3, 2))
        dark = np.asarray(sheet)
        yield f"{columns} x {rows}, dark", dark
        noise = rng.integers(0, 30, dark.shape)
        yield f"{columns} x {rows}, light with noise", (225 - 0.7 * dark + noise).astype(np.uint8)
    yield "of the field's size, dark", np.reshape(mnist.test_inputs[7], (28, 28))
    yield "of the field's size, light", 255 - np.reshape(mnist.test_inputs[7], (28, 28))
    yield "one pixel", np.pad(np.full((1, 1), 200), 40)
    yield "a line", np.pad(np.full((1, 300), 200), 40)


PLACE = """([text, width, height]) =>
  gpunn.place(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), width, height)"""


@pytest.mark.parametrize(
    ("sizes", "record", "shape", "box"),
    [
        ([784, 4, 3], {"image_shape": [28, 28]}, (28, 28), BOX),
        ([64, 4, 3], {"data": "digits"}, (8, 8), 1.0),
        ([20 * 12, 4, 3], {"image_shape": [20, 12]}, (20, 12), BOX),
        ([9 * 40, 4, 3], {"image_shape": [9, 40]}, (9, 40), BOX),
    ],
)
def test_pictures_are_prepared_as_in_python(opened, mnist, sizes, record, shape, box):
    page = opened(made(sizes, record=record))
    assert page.evaluate("paper.width * field.height === paper.height * field.width")
    exact = n_pixels = 0
    for name, grey in drawn_greys(mnist, page):
        expected = place(grey.astype(np.uint8), shape, box, name).values.astype(int)
        got = np.reshape(page.evaluate(PLACE, [to_base64(grey), *grey.shape[::-1]]), shape)
        assert np.abs(got - expected).max() <= 1, name
        exact += (got == expected).sum()
        n_pixels += got.size
    assert exact > 0.999 * n_pixels
    assert page.evaluate(PLACE, [to_base64(np.full((50, 50), 7)), 50, 50]) is None


def test_pictures_from_a_folder_stay_as_they_are(opened, mnist):
    record = {"image_shape": [20, 30], "pictures": "as they are"}
    network = made([600, 5, 3], record=record)
    page = opened(network)
    rng = np.random.default_rng(0)
    for name, grey in drawn_greys(mnist, page):
        # The page reduces the whole of a drawing, by Pillow's own formula.
        wide = Image.fromarray(grey.astype(np.float32)).resize((30, 20), Image.Resampling.BICUBIC)
        expected = np.rint(np.clip(np.asarray(wide), 0, 255))
        got = page.evaluate(PLACE, [to_base64(grey), *grey.shape[::-1]])
        assert np.abs(np.reshape(got, (20, 30)) - expected).max() <= 1, name
    # Its paper is light, or dark for those who choose it.
    page.get_by_role("button", name="Clear").click()
    expect_text(page, "#best", "–")
    dot(page, 0.3, 0.2)
    wait_for_answer(page)
    assert np.median(page.evaluate("gpunn.seen().picture")) == 255
    page.get_by_label("light on dark").check()
    page.wait_for_function("() => gpunn.seen().picture[0] === 0")
    seen = page.evaluate("gpunn.seen()")
    assert np.median(seen["picture"]) == 0
    assert max(seen["picture"]) > 100
    np.testing.assert_allclose(seen["outputs"], predicted(network, seen["picture"])[0], atol=1e-5)
    picture = rng.integers(0, 256, 600)
    page.evaluate("(picture) => gpunn.showPicture(picture)", picture.tolist())
    assert np.corrcoef(page.evaluate("gpunn.seen().picture"), picture)[0, 1] > 0.9


KINDS: list[dict[str, Any]] = [
    {"hidden_activation": name, "output_activation": other, "dtype": dtype}
    for name, other, dtype in [
        ("sigmoid", "sigmoid", "float32"),
        ("tanh", "tanh", "float32"),
        ("relu", "identity", "float32"),
        ("identity", "relu", "float64"),
        ("softmax", "softmax", "float64"),
    ]
]


@pytest.mark.parametrize("options", KINDS, ids=lambda kind: "-".join(kind.values()))
@pytest.mark.parametrize("sizes", [[120, 7], [120, 30, 7], [120, 20, 9, 16, 7]], ids=len)
def test_outputs_are_those_of_predict(opened, options, sizes):
    loss = "cross_entropy" if options["output_activation"] == "softmax" else "squared_error"
    network = made(sizes, loss=loss, biases=len(sizes) != 3, **options)
    network.training_record = {"image_shape": [10, 12], "value_range": [-1, 3]}
    rng = np.random.default_rng(5)
    network.scaling = Scaling(rng.normal(0, 1, 120), rng.normal(0, 0.1, 120))
    page = opened(network)
    pictures = rng.integers(0, 256, (20, 120))
    got = page.evaluate("(pictures) => pictures.map(gpunn.outputsOf)", pictures.tolist())
    expected = predicted(network, pictures, -1, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    if network.dtype == np.float64:
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    page.evaluate("(picture) => gpunn.showPicture(picture)", pictures[0].tolist())
    assert page.locator("#layers canvas").count() == len(sizes) - 2
    assert page.locator("#hidden").is_visible() == (len(sizes) > 2)


def test_neighbours_are_the_picture_moved_by_one_pixel(opened, mnist, mnist_network):
    page = opened(mnist_network)
    moves = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    n_others = 0
    for row in (8, 33, 115, 247):
        page.evaluate("(picture) => gpunn.showPicture(picture)", mnist.test_inputs[row].tolist())
        centre = np.pad(np.reshape(page.evaluate("gpunn.seen().picture"), (28, 28)), 1)
        moved = [np.roll(centre, move, (0, 1))[1:-1, 1:-1] for move in moves]
        answers = predicted(mnist_network, moved).argmax(axis=1)
        expect_text(page, "#neighbours .label", [str(answer) for answer in answers])
        others = int((answers != answers[4]).sum())
        assert page.locator("#neighbours .other").count() == others
        text = page.locator("#agreement").text_content()
        assert text.startswith({0: "All eight", 1: "One"}.get(others, f"{others} of the eight"))
        n_others += others
    assert n_others > 0


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\" onload='alert(3)' x=\"",
    "line\none\r\nline\u2028two\u2029\0",
    "${alert(4)} `$network`",
    "<!--<script>",
    "\u202eright to left",
    "\ud800",
    "",
    "x" * 100_000,
]


def test_a_hostile_model_is_text(opened):
    network = made([64, 5, 10], record={"data": "</title><script>alert(5)</script>"})
    network.class_labels = HOSTILE
    page = opened(network)
    page.locator("#paper").click()
    wait_for_answer(page)
    shown = page.locator("#bars .label").all_text_contents()
    assert shown[:3] == HOSTILE[:3]
    assert shown[4:6] == HOSTILE[4:6]
    assert shown[8] == "(no name)"
    assert max(map(len, shown)) <= 60
    assert "</title><script>alert(5)</script>" in page.locator("#about").text_content()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1  # what the page was told has been removed


def test_a_unit_that_is_pointed_at_shows_its_weights(opened):
    network = made([64, 7, 3])
    page = opened(network)
    dot(page, 0.5, 0.5)
    lights = page.get_by_role("slider", name="hidden layer 1: 7 units, sigmoid")
    lights.hover(position={"x": 5, "y": 5})
    expect_text(page, "#input-title", "Weights of unit 1")
    box = page.locator("#input").bounding_box()
    page.mouse.move(2, 2)
    expect_text(page, "#input-title", "What it sees")
    assert page.locator("#input").bounding_box() == box  # nothing has moved under the pointer
    lights.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    expect_text(page, "#input-title", "Weights of unit 3")
    assert re.match(r"unit 3, 0\.\d{3}$", lights.get_attribute("aria-valuetext"))
    colours = page.evaluate("Array.from(field.getContext('2d').getImageData(0, 0, 8, 8).data)")
    red, _, blue, _ = np.reshape(colours, (64, 4)).T
    weights = network.parameters()["layers.0.weight"][2]
    clear = np.abs(weights) > 0.1 * np.abs(weights).max()
    assert ((red > blue) == (weights > 0))[clear].all()
    page.keyboard.press("Escape")
    expect_text(page, "#input-title", "What it sees")


INTRUDERS = {
    "script-src-elem": "add('script', { textContent: 'window.isOwned = true' })",
    "script-src-attr": """
        const link = add("b", {});
        link.setAttribute("onclick", "window.isOwned = true");
        link.click();
    """,
    "script-src": "setTimeout(() => eval('window.isOwned = true'))",
    "style-src-elem": "add('style', { textContent: 'body { background: url(a.png) }' })",
    "style-src-attr": "add('b', {}).setAttribute('style', 'background: url(a.png)')",
    "img-src": "add('img', { src: 'https://example.org/a.png' })",
    "frame-src": "add('iframe', { src: 'https://example.org/' })",
    "connect-src": "fetch('https://example.org/').catch(() => {})",
    "form-action": "add('form', { action: 'https://example.org/' }).submit()",
    "base-uri": "add('base', { href: 'https://example.org/' })",
}
"""What a script that got into the page might try, by what forbids it."""


@pytest.mark.parametrize("directive", INTRUDERS)
def test_the_policy_keeps_out_what_is_not_the_page(browser, tmp_path, directive):
    file = tmp_path / "draw.html"
    file.write_text(draw_page(made([64, 5, 10])), "utf-8")
    page = browser.new_page()
    answered: list[str] = []
    page.on("response", lambda response: answered.append(response.url))
    page.goto(file.as_uri())
    page.evaluate(
        """() => {
          window.forbidden = [];
          document.addEventListener("securitypolicyviolation", (event) =>
            forbidden.push(event.effectiveDirective));
          window.add = (kind, properties) => {
            const node = Object.assign(document.createElement(kind), properties);
            document.body.append(node);
            return node;
          };
        }"""
    )
    page.evaluate(f"() => {{ {INTRUDERS[directive]} }}")
    page.wait_for_function("() => forbidden.length > 0", timeout=5000)
    assert page.evaluate("forbidden") == [directive]
    assert page.evaluate("window.isOwned === undefined")
    assert answered == [file.as_uri()]
    page.close()


def test_ten_thousand_classes_and_units(opened):
    network = made([64, 5000, 20, 10_000], output_activation="softmax", loss="cross_entropy")
    network.class_labels = [f"class {k}" for k in range(10_000)]
    page = opened(network)
    page.locator("#paper").click()
    wait_for_answer(page)
    outputs = predicted(network, page.evaluate("gpunn.seen().picture"))[0]
    strongest = np.argsort(-outputs, kind="stable")[:12]
    shown = page.locator("#bars .label").all_text_contents()
    assert shown == [f"class {k}" for k in strongest]
    assert page.locator("#outputs").text_content().startswith("The 12 largest of 10,000 outputs")
    captions = page.locator("#layers figcaption").all_text_contents()
    assert captions[0].startswith("the first 4,096 of 5,000 units")


def test_outputs_that_are_no_numbers(opened):
    network = made([64, 5, 3])
    network.load_parameters({k: v * np.nan for k, v in network.parameters().items()})
    page = opened(network)
    page.locator("#paper").click()
    expect_text(page, "#best", "not a number")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes(opened, scheme):
    page = opened(made([64, 5, 3]), color_scheme=scheme)
    page.locator("#paper").click()
    wait_for_answer(page)
    pixels = np.asarray(Image.open(BytesIO(page.screenshot())).convert("L"))
    assert (np.median(pixels) > 128) == (scheme == "light")
    # The ink is what differs from the paper, in either scheme.
    paper = np.asarray(Image.open(BytesIO(page.locator("#paper").screenshot())).convert("L"))
    middle, corner = int(paper[paper.shape[0] // 2, paper.shape[1] // 2]), int(paper[20, 20])
    assert (corner > middle) == (scheme == "light")
    assert abs(corner - middle) > 150
