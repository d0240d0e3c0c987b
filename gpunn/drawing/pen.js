// The paper: ink by mouse, pen, finger or keyboard. Its grey levels are read from how opaque the
// ink is, so they do not depend on the colours in which it is shown.

const LONG_SIDE = 448; // pixels of the paper, about; always a whole number of those of the field
const PEN = 0.09; // width of the pen, as a part of the paper's short side

// Return the paper.
//
// `whenDrawn()` is called whenever the ink has changed. `grey(isLight)` returns what is on the paper
// as {values, rows, columns}, as bright ink on black or, if `isLight`, as dark ink on white;
// `show(values, isLight)` enlarges a picture of the field's size to that of the paper.
function makePaper(canvas, cursor, { rows, columns }, whenDrawn) {
  const zoom = Math.max(2, Math.round(LONG_SIDE / Math.max(rows, columns)));
  canvas.width = columns * zoom;
  canvas.height = rows * zoom;
  const ink = canvas.getContext("2d", { willReadFrequently: true });
  const pen = PEN * Math.min(canvas.width, canvas.height);
  let at = { x: canvas.width / 2, y: canvas.height / 2 };
  let stroke = null; // of a pointer that is down: its id and its last points

  ink.lineCap = "round";
  ink.lineJoin = "round";
  ink.lineWidth = pen;

  function line(from, to, bend = from) {
    ink.beginPath();
    ink.moveTo(from.x, from.y);
    ink.quadraticCurveTo(bend.x, bend.y, to.x, to.y);
    ink.stroke();
    whenDrawn();
  }

  function clear() {
    ink.clearRect(0, 0, canvas.width, canvas.height);
    whenDrawn();
  }

  function placeOf(event) {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) * canvas.width) / box.width,
      y: ((event.clientY - box.top) * canvas.height) / box.height,
    };
  }

  // From the middle between two points to the next middle, so that a stroke has no corners.
  function follow(point) {
    const middle = between(stroke.last, point);
    line(stroke.middle, middle, stroke.last);
    stroke = { id: stroke.id, last: point, middle };
  }

  function begin(event) {
    if (stroke !== null || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    const point = placeOf(event);
    stroke = { id: event.pointerId, last: point, middle: point };
    line(point, point);
    cursor.hidden = true;
  }

  function move(event) {
    if (event.pointerId !== stroke?.id) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length > 0 ? events : [event]) follow(placeOf(one));
  }

  function end(event) {
    if (event.pointerId !== stroke?.id) return;
    line(stroke.middle, stroke.last);
    at = stroke.last;
    stroke = null;
  }

  function showCursor() {
    cursor.hidden = false;
    cursor.style.left = `${(100 * at.x) / canvas.width}%`;
    cursor.style.top = `${(100 * at.y) / canvas.height}%`;
  }

  function press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const direction = DIRECTIONS[event.key];
    if (direction !== undefined) {
      const next = {
        x: Math.min(Math.max(at.x + direction[0] * zoom, 0), canvas.width),
        y: Math.min(Math.max(at.y + direction[1] * zoom, 0), canvas.height),
      };
      if (event.shiftKey) line(at, next);
      at = next;
    } else if (event.key === " " || event.key === "Enter") {
      line(at, at);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      clear();
    } else {
      return;
    }
    event.preventDefault();
    showCursor();
  }

  canvas.addEventListener("pointerdown", begin);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("keydown", press);
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && showCursor());
  canvas.addEventListener("blur", () => (cursor.hidden = true));
  cursor.style.width = `${(100 * pen) / canvas.width}%`;

  function grey(isLight) {
    const { data } = ink.getImageData(0, 0, canvas.width, canvas.height);
    const values = new Uint8Array(data.length / 4);
    for (let k = 0; k < values.length; k++) values[k] = data[4 * k + 3];
    return { values: isLight ? values.map((x) => 255 - x) : values, rows: canvas.height, columns: canvas.width };
  }

  function show(values, isLight) {
    const small = document.createElement("canvas");
    small.width = columns;
    small.height = rows;
    const pixels = new ImageData(columns, rows);
    values.forEach((x, k) => (pixels.data[4 * k + 3] = isLight ? 255 - x : x));
    small.getContext("2d").putImageData(pixels, 0, 0);
    ink.clearRect(0, 0, canvas.width, canvas.height);
    ink.imageSmoothingEnabled = false;
    ink.drawImage(small, 0, 0, canvas.width, canvas.height);
    whenDrawn();
  }

  return { clear, grey, show };
}

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function between(a, b) {
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
}
