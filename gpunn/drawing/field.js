// From a drawing to the picture that the network takes: the same as gpunn/data/picture_fields.py,
// step by step. A picture is {values, rows, columns}, its values row by row.

// Return a picture of grey levels, 0 to 255, as the network takes it; null if nothing is on it.
//
// `told` says how: rows and columns of the result, the box that ink may take in it (null if
// pictures stay as they are), and how much of the contrast is ink.
function prepare(grey, told) {
  const [low, high] = extremes(grey.values);
  if (low === high) return null;
  return told.box === null ? reduced(grey, told) : place(grey, low, high, told);
}

// Return the whole picture in another size.
function reduced(grey, { rows, columns }) {
  const small = resize(grey, rows, columns);
  return Uint8Array.from(small.values, (x) => roundHalfEven(Math.min(Math.max(x, 0), 255)));
}

// Return ink in the middle of a field, prepared as MNIST's digits were.
function place(grey, low, high, told) {
  const ground = medianOfBorder(grey);
  const isLight = ground > (low + high) / 2;
  if (grey.rows === told.rows && grey.columns === told.columns && !isLight) {
    return Uint8Array.from(grey.values);
  }
  const strongest = isLight ? low : high;
  const inkOfGrey = Float64Array.from({ length: 256 }, (_, value) =>
    Math.min(Math.max((value - ground) / (strongest - ground), 0), 1),
  );
  const ink = cutOut(grey, inkOfGrey, told.ink);
  return centred(fitted(ink, told.box), told);
}

function extremes(values) {
  let [low, high] = [values[0], values[0]];
  for (let k = 1; k < values.length; k++) {
    if (values[k] < low) low = values[k];
    if (values[k] > high) high = values[k];
  }
  return [low, high];
}

// The corners count twice.
function medianOfBorder({ values, rows, columns }) {
  const border = [];
  for (let x = 0; x < columns; x++) border.push(values[x], values[(rows - 1) * columns + x]);
  for (let y = 0; y < rows; y++) border.push(values[y * columns], values[(y + 1) * columns - 1]);
  const sorted = Uint8Array.from(border).sort();
  return (sorted[sorted.length / 2 - 1] + sorted[sorted.length / 2]) / 2;
}

// Return the smallest rectangle that has all the ink, as shares of the strongest ink.
function cutOut({ values, rows, columns }, inkOfGrey, least) {
  let [top, bottom, left, right] = [rows, -1, columns, -1];
  for (let y = 0, k = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, k++) {
      if (inkOfGrey[values[k]] <= least) continue;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
      if (x < left) left = x;
      if (x > right) right = x;
    }
  }
  const cut = makePicture(bottom - top + 1, right - left + 1);
  for (let y = 0, k = 0; y < cut.rows; y++) {
    const start = (top + y) * columns + left;
    for (let x = 0; x < cut.columns; x++, k++) cut.values[k] = inkOfGrey[values[start + x]];
  }
  return cut;
}

// Return ink at the largest size that fits the box, smoothed where it becomes smaller.
function fitted(ink, [mostRows, mostColumns]) {
  const factor = Math.min(mostRows / ink.rows, mostColumns / ink.columns);
  const [rows, columns] = [ink.rows, ink.columns].map((side) =>
    Math.max(1, roundHalfEven(side * factor)),
  );
  const { values } = resize(ink, rows, columns);
  const clipped = Float64Array.from(values, (x) => Math.min(Math.max(x, 0), 1));
  const strongest = extremes(clipped)[1]; // because thin lines have become faint
  return { values: clipped.map((x) => x / strongest), rows, columns };
}

// Return a field with ink in it, as near to the middle as whole pixels allow.
function centred(ink, { rows, columns }) {
  const field = new Uint8Array(rows * columns);
  const [down, across] = centreOfMass(ink);
  const top = startOf(rows, down, ink.rows);
  const left = startOf(columns, across, ink.columns);
  for (let y = 0, k = 0; y < ink.rows; y++) {
    const start = (top + y) * columns + left;
    for (let x = 0; x < ink.columns; x++, k++) {
      field[start + x] = roundHalfEven(255 * ink.values[k]);
    }
  }
  return field;
}

function centreOfMass({ values, columns }) {
  let [mass, down, across] = [0, 0, 0];
  values.forEach((value, k) => {
    mass += value;
    down += value * Math.floor(k / columns);
    across += value * (k % columns);
  });
  return [down / mass, across / mass];
}

// Return where ink begins that has its centre of mass in the middle; of two places, the first.
function startOf(side, centre, length) {
  const start = Math.ceil(side / 2 - centre - 0.5 - 1e-9);
  return Math.min(Math.max(start, 0), side - length);
}

// Return a picture in another size, as Pillow's Image.resize does with BICUBIC: across, then down.
function resize(picture, rows, columns) {
  const wide = picture.columns === columns ? picture : resizeAcross(picture, columns);
  if (picture.rows === rows) return wide;
  return turned(resizeAcross(turned(wide), rows));
}

function resizeAcross(picture, columns) {
  const result = makePicture(picture.rows, columns);
  const weights = weightsOf(picture.columns, columns);
  for (let y = 0, k = 0; y < picture.rows; y++) {
    for (let x = 0; x < columns; x++, k++) {
      const { first, shares } = weights[x];
      const start = y * picture.columns + first;
      let sum = 0;
      for (let j = 0; j < shares.length; j++) sum += picture.values[start + j] * shares[j];
      result.values[k] = sum;
    }
  }
  return result;
}

// Return for each new pixel which old ones it is made of, and their shares. Where the picture
// becomes smaller, the kernel becomes as much wider, so that no pixel is passed over.
function weightsOf(nOld, nNew) {
  const step = nOld / nNew;
  const widening = Math.max(step, 1);
  return Array.from({ length: nNew }, (_, k) => {
    const centre = (k + 0.5) * step;
    const first = Math.max(0, Math.trunc(centre - 2 * widening + 0.5));
    const end = Math.min(nOld, Math.trunc(centre + 2 * widening + 0.5));
    const shares = Float64Array.from({ length: end - first }, (_, j) =>
      bicubic((first + j - centre + 0.5) / widening),
    );
    const sum = shares.reduce((a, b) => a + b);
    return { first, shares: shares.map((share) => share / sum) };
  });
}

// R. Keys, "Cubic convolution interpolation for digital image processing" (1981), a = -1/2.
function bicubic(x) {
  const d = Math.abs(x);
  if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
  return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
}

function turned({ values, rows, columns }) {
  const result = makePicture(columns, rows);
  for (let y = 0, k = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, k++) result.values[x * rows + y] = values[k];
  }
  return result;
}

// Pillow keeps float32 between its two passes, so this does, too.
function makePicture(rows, columns) {
  return { values: new Float32Array(rows * columns), rows, columns };
}

// Round as Python does: halves to the even number.
function roundHalfEven(x) {
  const below = Math.floor(x);
  const isHalf = x - below === 0.5;
  return isHalf ? below + (below % 2) : Math.round(x);
}

// Return a field with its content some pixels lower and to the right; what is new is ground.
function shifted(field, { rows, columns }, down, right, ground) {
  const result = new Uint8Array(field.length).fill(ground);
  for (let y = Math.max(0, down); y < Math.min(rows, rows + down); y++) {
    for (let x = Math.max(0, right); x < Math.min(columns, columns + right); x++) {
      result[y * columns + x] = field[(y - down) * columns + x - right];
    }
  }
  return result;
}
