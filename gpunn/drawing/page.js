// The page: ink becomes a picture, the picture goes through the network, and all of it is shown.

const SLOW = 6; // milliseconds; if the network needs more, the neighbours wait until the pen rests
const REST_OF_PEN = 150; // milliseconds
const SILENCE = 700; // milliseconds without a change, before an answer is read out

const told = JSON.parse(element("network").textContent);
element("network").remove();
const network = makeNetwork(told);
const outputLayer = network.layers.at(-1);
const paper = makePaper(element("paper"), element("cursor"), told.picture, soon);

const showField = makePictureView(element("field"), told.picture);
const showLayers = makeLayerViews();
const showBars = makeBarsView(element("bars"), told.labels, outputLayer.activation);
const showNeighbours = makeNeighboursView(
  element("neighbours"), element("agreement"), told.picture, (picture) => labelOf(outputsOf(picture)),
);

let seen = { picture: null, outputs: null };
let pointed = null; // the unit of the first hidden layer whose weights are shown
let [frame, resting, speaking] = [null, null, null];

function makeLayerViews() {
  const hidden = network.layers.slice(0, -1);
  element("hidden").hidden = hidden.length === 0;
  if (hidden.length > 1) element("hidden-title").textContent = "The hidden layers";
  return hidden.map((layer, k) =>
    // Only the weights of the first layer belong to pixels.
    makeLayerView(element("layers"), layer, `hidden layer ${k + 1}`, k === 0 ? pointAt : undefined),
  );
}

function pointAt(unit) {
  pointed = unit;
  showInput();
}

// Show the picture that the network gets, or the weights of a unit in its place.
function showInput() {
  element("input-title").textContent = pointed === null ? "What it sees" : `Weights of unit ${pointed + 1}`;
  if (pointed === null) showField(seen.picture);
  else showWeights(element("field"), network.weightsOf(pointed));
  element("how").classList.toggle("away", pointed !== null);
  element("legend").classList.toggle("away", pointed === null);
}

function outputsOf(picture) {
  return network.forward(network.inputsOf(picture)).at(-1);
}

function labelOf(outputs) {
  const best = argmax(outputs);
  return Number.isNaN(outputs[best]) ? "not a number" : told.labels[best];
}

// Pictures that a model knows as they are may be dark on light, and then its paper is, too.
function isLight() {
  return told.picture.box === null && !element("dark-paper").checked;
}

function soon() {
  frame ??= requestAnimationFrame(update);
}

function update() {
  cancelAnimationFrame(frame);
  frame = null;
  const picture = prepare(paper.grey(isLight()), told.picture);
  const start = performance.now();
  const activations = picture === null ? null : network.forward(network.inputsOf(picture));
  const isSlow = performance.now() - start > SLOW;
  const outputs = activations === null ? null : activations.at(-1);
  seen = { picture, outputs };
  element("hint").hidden = picture !== null;
  if (pointed === null) showField(picture);
  showLayers.forEach((show, k) => show(activations === null ? null : activations[k]));
  showBars(outputs);
  showBest(outputs === null ? "–" : shortened(labelOf(outputs)));
  const moveAround = () => showNeighbours(picture, isLight() ? 255 : 0);
  clearTimeout(resting);
  resting = setTimeout(moveAround, isSlow ? REST_OF_PEN : 0);
  clearTimeout(speaking);
  speaking = setTimeout(() => (element("live").textContent = inWords(outputs)), SILENCE);
}

function showBest(text) {
  element("best").textContent = text;
  element("best").title = text;
}

function inWords(outputs) {
  if (outputs === null) return "The paper is empty.";
  const strongest = inFewDigits(outputs[argmax(outputs)]);
  return `The answer is ${shortened(labelOf(outputs))}, with the output ${strongest}.`;
}

// Write what does not change.
function introduce() {
  const { rows, columns, box } = told.picture;
  if (told.labels.every((label) => /^\d$/.test(label))) {
    element("title").textContent = "Draw a digit";
  }
  element("about").textContent = `${aboutNetwork()} Nothing you draw leaves this page.`;
  element("field").setAttribute("aria-label", `the picture of ${columns} by ${rows} pixels`);
  const hasWords = told.labels.some((label) => label.length > 3);
  element("answer").classList.toggle("words", hasWords);
  element("how").textContent = aboutPicture();
  element("outputs").textContent = aboutOutputs();
  element("paper-choice").hidden = box !== null;
  element("sheet").classList.toggle("as-they-are", box === null);
}

function aboutPicture() {
  const { rows, columns, box } = told.picture;
  const how =
    box === null
      ? "your drawing made smaller, and otherwise as it is."
      : `the ink fitted into ${box[1]} × ${box[0]}, its centre of mass in the middle, as in training.`;
  return `${columns} × ${rows} pixels: ${how}`;
}

function aboutNetwork() {
  const sizes = [network.layers[0].inputs, ...network.layers.map((layer) => layer.units)];
  let text = `A network of ${sizes.map(inEnglish).join(" → ")} units answers while you draw.`;
  if (told.data !== null) text += ` It learnt from ${shortened(told.data)}`;
  if (told.data !== null && told.accuracy !== null) {
    text += ` and was right on ${(100 * told.accuracy).toFixed(1)} % of the samples held out`;
  }
  return told.data === null ? text : `${text}.`;
}

function aboutOutputs() {
  const { units, activation } = outputLayer;
  const some = units > MOST_BARS ? `The ${MOST_BARS} largest of ${inEnglish(units)}` : units;
  return `${some} outputs, ${SYMBOLS[activation]}: ${RANGES[activation]}.`;
}

element("clear").addEventListener("click", () => paper.clear());
element("dark-paper").addEventListener("change", () => {
  element("sheet").classList.toggle("dark-paper", element("dark-paper").checked);
  soon();
});

introduce();
showInput();
update();

// For tests and for the curious in the browser's console; the page itself uses the same functions.
//
//   gpunn.outputsOf(values)           the outputs for a picture: grey levels from 0 to 255, row by row
//   gpunn.place(grey, width, height)  a picture of any size as the network takes it; null if it is empty
//   gpunn.showPicture(values)         puts a picture of the network's size on the paper, enlarged
//   gpunn.seen()                      the picture that the network has got now, and its outputs
window.gpunn = Object.freeze({
  outputsOf: (values) => Array.from(outputsOf(values)),
  place: (grey, width, height) => {
    const picture = prepare({ values: grey, rows: height, columns: width }, told.picture);
    return picture && Array.from(picture);
  },
  showPicture(values) {
    paper.show(values, isLight());
    update();
  },
  seen: () => ({
    picture: seen.picture && Array.from(seen.picture),
    outputs: seen.outputs && Array.from(seen.outputs),
  }),
});
