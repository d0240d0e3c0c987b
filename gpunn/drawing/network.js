// The network: its numbers, and its way forward, Z_l = A_{l-1} W_l^T + b_l and A_l = f_l(Z_l), as
// in gpunn/network/forward.py. Sums are float64, whatever the weights are kept in.

const ACTIVATIONS = {
  sigmoid: (z) => z.map((x) => 1 / (1 + Math.exp(-x))),
  tanh: (z) => z.map(Math.tanh),
  relu: (z) => z.map((x) => Math.max(0, x)),
  identity: (z) => z,
  softmax(z) {
    // The largest is taken off first: the result is the same, and exp cannot overflow.
    const largest = z.reduce((a, b) => Math.max(a, b));
    const powers = z.map((x) => Math.exp(x - largest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((x) => x / sum);
  },
};

// Return the numbers of a base64 text. They are little-endian, as all browsers have them.
function numbersOf(base64, Kind) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = text.charCodeAt(k);
  return new Kind(bytes.buffer);
}

// Return a network of what the page was told of it.
//
// `inputsOf(picture)` takes grey levels from 0 to 255, row by row, to the inputs: first into the
// range of the training's values, then scaled as they were, and rounded to the network's dtype.
// `forward(inputs)` returns the activations of all layers, the outputs last. `weightsOf(unit)` is what
// a unit of the first layer looks for.
function makeNetwork(told) {
  const Kind = told.dtype === "float32" ? Float32Array : Float64Array;
  const layers = told.layers.map((layer) => ({
    ...layer,
    weights: numbersOf(layer.weights, Kind),
    biases: layer.biases === null ? null : numbersOf(layer.biases, Kind),
  }));
  const scale = numbersOf(told.scale, Float64Array);
  const shift = numbersOf(told.shift, Float64Array);
  const { low, high } = told.picture;

  function inputsOf(picture) {
    return Kind.from(picture, (grey, k) => {
      const raw = low + grey * ((high - low) / 255);
      return raw * scale[k % scale.length] + shift[k % shift.length];
    });
  }

  function forward(inputs) {
    let below = inputs;
    return layers.map((layer) => {
      below = ACTIVATIONS[layer.activation](weightedSums(layer, below));
      return below;
    });
  }

  // What each pixel's ink adds to the sum of a unit of the first layer, but for a factor.
  function weightsOf(unit) {
    const { weights, inputs: n } = layers[0];
    const ofUnit = weights.subarray(unit * n, (unit + 1) * n);
    return Float64Array.from(ofUnit, (weight, k) => weight * scale[k % scale.length]);
  }

  return { layers, inputsOf, forward, weightsOf };
}

function weightedSums({ weights, biases, inputs: n, units }, below) {
  const sums = new Float64Array(units);
  for (let unit = 0, k = 0; unit < units; unit++) {
    let sum = biases === null ? 0 : biases[unit];
    for (let j = 0; j < n; j++, k++) sum += weights[k] * below[j];
    sums[unit] = sum;
  }
  return sums;
}

// Return the place of the largest number, the first of equal ones; that of NaN if there is one.
function argmax(numbers) {
  let best = 0;
  for (let k = 1; k < numbers.length && !Number.isNaN(numbers[best]); k++) {
    if (!(numbers[k] <= numbers[best])) best = k;
  }
  return best;
}
