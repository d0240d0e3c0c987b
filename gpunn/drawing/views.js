// What the page shows of the network. Whatever comes from the model is text and nothing else: it is
// put in place with textContent alone.

const MOST_BARS = 12; // of more outputs, the strongest are shown
const MOST_UNITS = 4096; // of more units in a layer, the first are shown
const LONGEST_TEXT = 60;

const TILE = [16, 18, 22]; // the dark ground of pictures and units, in both colour schemes
const WHITE = [255, 255, 255];
const REST = [44, 48, 56];
const POSITIVE = [255, 178, 56];
const NEGATIVE = [96, 165, 255];

const RANGES = {
  sigmoid: "each is between 0 and 1",
  tanh: "each is between −1 and 1",
  relu: "none is below 0",
  identity: "they are any numbers",
  softmax: "all of them together are 1",
};
const SYMBOLS = { sigmoid: "sigmoid", tanh: "tanh", relu: "ReLU", identity: "linear", softmax: "softmax" };

function element(id) {
  return document.getElementById(id);
}

function made(parent, kind, className = "", text = "") {
  const child = document.createElement(kind);
  child.className = className;
  child.textContent = text;
  parent.append(child);
  return child;
}

function shortened(text) {
  const line = text.replace(/\s+/g, " ").trim() || "(no name)";
  const letters = Array.from(line.slice(0, 4 * LONGEST_TEXT));
  return letters.length > LONGEST_TEXT ? `${letters.slice(0, LONGEST_TEXT - 1).join("")}…` : line;
}

function mixed(one, other, share) {
  return one.map((value, k) => value + (other[k] - value) * share);
}

// What grey levels look like, as pixels of four bytes.
const GREYS = new Uint8ClampedArray(
  Array.from({ length: 256 }, (_, grey) => [...mixed(TILE, WHITE, grey / 255), 255]).flat(),
);

// Show a picture of grey levels, pixel by pixel.
function makePictureView(canvas, { rows, columns }) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = new ImageData(columns, rows);
  return (values) => {
    for (let k = 0; k < pixels.data.length; k++) {
      pixels.data[k] = GREYS[4 * (values?.[k >> 2] ?? 0) + (k & 3)];
    }
    context.putImageData(pixels, 0, 0);
  };
}

// Show what a unit looks for: its weights, orange where ink makes it more active, else blue.
function showWeights(canvas, weights) {
  const pixels = new ImageData(canvas.width, canvas.height);
  const strongest = Math.max(...extremes(weights).map(Math.abs)) || 1;
  weights.forEach((weight, k) => pixels.data.set([...coloured(TILE, weight / strongest), 255], 4 * k));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// Return a colour for a share from -1 to 1 of full strength.
function coloured(rest, share) {
  return mixed(rest, share < 0 ? NEGATIVE : POSITIVE, Math.min(Math.abs(share) || 0, 1));
}

// Show the units of a hidden layer as lights: orange above 0, blue below.
//
// `whenPointed(unit)`, if there is one, is called when somebody points at a unit, and with null when
// no more.
function makeLayerView(parent, { units, activation }, name, whenPointed) {
  const n = Math.min(units, MOST_UNITS);
  const across = Math.min(n, Math.ceil(Math.sqrt(2 * n)));
  const cell = Math.max(4, Math.floor(560 / across));
  const gap = Math.round(cell / 7);
  const figure = made(parent, "figure");
  const canvas = made(figure, "canvas", "units");
  const shown = n < units ? `the first ${inEnglish(n)} of ` : "";
  const caption = `${shown}${inEnglish(units)} units, ${SYMBOLS[activation]}`;
  const hint = whenPointed === undefined ? "" : " Point at one to see its weights.";
  made(figure, "figcaption", "note", `${caption}: the brighter, the more active.${hint}`);
  canvas.width = across * cell + gap;
  canvas.height = Math.ceil(n / across) * cell + gap;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${name}: ${caption}`);
  const context = canvas.getContext("2d");
  let [activations, pointed] = [null, null];

  function paint() {
    const full = activations === null ? 1 : fullScale(activations, activation);
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (let k = 0; k < n; k++) {
      const share = activations === null ? 0 : activations[k] / full;
      const [x, y] = [gap + (k % across) * cell, gap + Math.floor(k / across) * cell];
      if (k === pointed) {
        context.fillStyle = "white";
        context.fillRect(x - gap, y - gap, cell + gap, cell + gap);
      }
      context.fillStyle = `rgb(${coloured(REST, share).map(Math.round).join(" ")})`;
      context.fillRect(x, y, cell - gap, cell - gap);
    }
  }

  function pointAt(unit) {
    if (unit === pointed) return;
    pointed = unit;
    paint();
    whenPointed(unit);
    const value = unit === null || activations === null ? "" : `, ${inFewDigits(activations[unit])}`;
    canvas.setAttribute("aria-valuenow", (unit ?? 0) + 1);
    canvas.setAttribute("aria-valuetext", `unit ${(unit ?? 0) + 1}${value}`);
  }

  function unitAt(event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * (canvas.width / cell));
    const row = Math.floor(((event.clientY - box.top) / box.height) * (canvas.height / cell));
    const unit = row * across + Math.min(column, across - 1);
    return unit >= 0 && unit < n ? unit : null;
  }

  if (whenPointed !== undefined) {
    beSlider(canvas, n, across, () => pointed, pointAt);
    canvas.addEventListener("pointermove", (event) => pointAt(unitAt(event)));
    canvas.addEventListener("pointerdown", (event) => pointAt(unitAt(event)));
    canvas.addEventListener("pointerleave", () => pointAt(null));
  }
  return (values) => {
    activations = values;
    paint();
  };
}

// Let arrow keys choose one of n places, which are in rows.
function beSlider(canvas, n, across, now, choose) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "slider");
  canvas.setAttribute("aria-valuemin", 1);
  canvas.setAttribute("aria-valuemax", n);
  canvas.setAttribute("aria-valuenow", 1);
  canvas.addEventListener("blur", () => choose(null));
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(null);
    if (steps[event.key] === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = now() === null ? 0 : now() + steps[event.key];
    if (next >= 0 && next < n) choose(next);
  });
}

// Return the activation that is shown at full strength.
function fullScale(values, activation) {
  if (activation === "sigmoid" || activation === "tanh") return 1;
  return Math.max(...extremes(values).map(Math.abs)) || 1;
}

// Return what the ends of the bars stand for.
function rangeOfBars(values, activation) {
  if (activation === "sigmoid" || activation === "softmax") return [0, 1];
  if (activation === "tanh") return [-1, 1];
  const [low, high] = extremes(values);
  return [Math.min(0, low), Math.max(0, high) || 1];
}

// Show outputs as bars that begin at 0: all in their order, or the strongest, the strongest first.
function makeBarsView(list, labels, activation) {
  const all = labels.map((_, k) => k);
  const isWhole = labels.length <= MOST_BARS;
  const rows = all.slice(0, MOST_BARS).map(() => {
    const row = made(list, "li");
    const label = made(row, "span", "label");
    const bar = made(made(row, "span", "track"), "span", "bar");
    return { row, label, bar, value: made(row, "span", "value") };
  });
  return (values) => {
    const order = values === null || isWhole ? all : [...all].sort((a, b) => values[b] - values[a]);
    const best = values === null ? -1 : argmax(values);
    const [low, high] = values === null ? [0, 1] : rangeOfBars(values, activation);
    rows.forEach(({ row, label, bar, value }, place) => {
      const output = values === null ? 0 : values[order[place]];
      label.textContent = values === null && !isWhole ? "" : shortened(labels[order[place]]);
      value.textContent = values === null ? "" : inFewDigits(output);
      bar.style.left = `${(100 * (Math.min(output, 0) - low)) / (high - low)}%`;
      bar.style.width = `${(100 * Math.abs(output)) / (high - low)}%`;
      row.className = order[place] === best ? "best" : "";
    });
  };
}

function inEnglish(count) {
  return count.toLocaleString("en");
}

function inFewDigits(x) {
  return Math.abs(x) < 1000 ? x.toFixed(3).replace("-", "−") : x.toExponential(2);
}

const AROUND = [
  ["up and left", -1, -1], ["up", -1, 0], ["up and right", -1, 1],
  ["left", 0, -1], ["not moved", 0, 0], ["right", 0, 1],
  ["down and left", 1, -1], ["down", 1, 0], ["down and right", 1, 1],
];

// Show a picture and its eight neighbours, each with the label that it gets.
function makeNeighboursView(list, summary, told, labelOf) {
  const tiles = AROUND.map(([where, down, right]) => {
    const row = made(list, "li");
    made(row, "span", "heard", `${where}: `);
    const canvas = made(row, "canvas", "pixels");
    canvas.setAttribute("aria-hidden", "true");
    return { row, down, right, show: makePictureView(canvas, told), answer: made(row, "span", "label") };
  });
  return (field, ground) => {
    const answers = tiles.map(({ down, right, show, answer }) => {
      const moved = field && shifted(field, told, down, right, ground);
      show(moved);
      answer.textContent = moved ? shortened(labelOf(moved)) : "–";
      return answer.textContent;
    });
    let others = 0;
    tiles.forEach(({ row }, k) => {
      const differs = answers[k] !== answers[4];
      row.className = k === 4 ? "here" : differs ? "other" : "";
      others += differs;
    });
    summary.textContent = field === null ? "" : agreement(others);
  };
}

function agreement(others) {
  if (others === 0) return "All eight neighbours get the same answer.";
  const some = others === 1 ? "One neighbour gets" : `${others} of the eight neighbours get`;
  return `${some} another answer: to this network, the same ink one pixel further is another input.`;
}
