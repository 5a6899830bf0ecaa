// What the widgets share: the newest message of a model, one drawing per animation frame, the state line, the picture.

const SILENT_AFTER_MS = 4000;
const PICTURE_EVERY_MS = 2000;

// The newest message of one model, and whoever draws it. One for each model: a view made later begins with it.
export class Frames {
  constructor() {
    this.newest = null;
    this.views = new Set();
  }

  // For anywidget's `initialize`.
  listen(model) {
    model.on("msg:custom", (meta, buffers) => {
      // A message without a picture says only how things stand; the picture of before goes on.
      const before = buffers.length ? null : this.newest;
      this.newest = { meta: { ...before?.meta, ...meta }, buffers: before?.buffers ?? buffers, at: performance.now() };
      for (const schedule of this.views) schedule();
    });
    model.send({ want: "frame" }); // a page that was reloaded has none; answered when the kernel is idle
  }

  // Calls draw(message) with the newest message, at most once per animation frame; returns what stops that.
  draw(draw) {
    let scheduled = 0;
    const run = () => {
      scheduled = 0;
      if (this.newest) draw(this.newest);
    };
    const schedule = () => {
      scheduled ||= requestAnimationFrame(run);
    };
    this.views.add(schedule);
    schedule();
    return () => {
      this.views.delete(schedule);
      cancelAnimationFrame(scheduled);
    };
  }
}

export function element(tag, className, parent, text = "") {
  const el = document.createElement(tag);
  if (className) el.className = className;
  el.textContent = text;
  parent?.append(el);
  return el;
}

// Copied, because the buffer of a message need not begin at a multiple of the bytes of a number.
function copied(view) {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

export function doubles(view) {
  return new Float64Array(copied(view));
}

const KINDS = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array };

export function numbersOf(kind, view) {
  return new KINDS[kind](copied(view));
}

export function bytes(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (value !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(3);
  return Number(value.toPrecision(5)).toString();
}

// Says in `el` what is wrong with the channels, or with the kernel; `note` is for when nothing is. What is odd about the picture stands behind it.
export function showState(el, message, note) {
  if (!message) return;
  const silent = performance.now() - message.at > SILENT_AFTER_MS && message.meta.state !== "closed";
  const state = silent ? "silent" : message.meta.state;
  el.dataset.state = state;
  const odd = state === "live" || state === "gone" ? message.meta.note : "";
  el.dataset.note = odd ?? "";
  const words = state === "live" ? note : silent ? "no news from the kernel" : message.meta.status;
  el.textContent = odd ? `${words}; ${odd}` : words;
}

export function watchState(frames, el, note) {
  const timer = setInterval(() => showState(el, frames.newest, note()), 1000);
  return () => clearInterval(timer);
}

// Keeps a picture in the model, so that a notebook that was saved with its widgets shows it without a kernel. It is not
// sent to the kernel: that may be busy, and has no use for it.
export function keepPicture(model, trait, take) {
  let timer = 0;
  const save = () => {
    timer = 0;
    const picture = take();
    if (picture) model.set(trait, picture);
  };
  // Later, so that what is kept in the end is the last picture and not one of some seconds before.
  return () => {
    timer ||= setTimeout(save, PICTURE_EVERY_MS);
  };
}

// Shows the picture that was saved, until the first message comes.
export function showPicture(model, frames, parent) {
  const url = model.get("picture");
  if (!url || frames.newest) return () => {};
  const img = element("img", "labhub-picture", parent);
  img.src = url;
  img.alt = "the last picture of this widget; run its cell to see it live";
  return () => img.remove();
}
