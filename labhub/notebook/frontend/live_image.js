// The newest frame of a channel: labhub.LiveImage.
import "./common.css";
import { bytes, element, Frames, keepPicture, numbersOf, short, showPicture, showState, watchState } from "./common.js";
import { colorAt, MAPS, table } from "./colors.js";
import { precise, spacing } from "./numbers.js";
import { themeOf, watchTheme } from "./theme.js";

const HISTOGRAM = { width: 320, height: 56, labels: 16 };

class ImageView {
  constructor(model, frames, el) {
    this.model = model;
    this.frames = frames;
    this.root = element("div", "labhub labhub-image", el);
    this.paused = false;
    this.shown = null;
    this.drawn = 0;
    this.makeBar();
    this.removePicture = showPicture(model, frames, this.root);
    this.canvas = element("canvas", "labhub-frame", this.root);
    this.readout = element("div", "labhub-readout", this.root, " ");
    this.histogram = element("canvas", "labhub-histogram", this.root);
    this.canvas.hidden = this.histogram.hidden = true;
    this.canvas.onpointermove = (event) => this.point(event);
    this.canvas.onpointerleave = () => this.point(null);
    this.picture = keepPicture(model, "picture", () => this.canvas.toDataURL("image/png"));
    const again = () => this.redraw();
    const traits = ["vmin", "vmax", "cmap"].map((name) => `change:${name}`);
    traits.forEach((name) => model.on(name, again));
    this.stops = [
      frames.draw((message) => this.receive(message)),
      watchTheme(again),
      watchState(frames, this.state, () => this.note()),
      () => traits.forEach((name) => model.off(name, again)),
    ];
  }

  makeBar() {
    const bar = element("div", "labhub-bar", this.root);
    element("b", "", bar, this.model.get("title"));
    const pause = element("button", "", bar, "Pause");
    pause.onclick = () => {
      this.paused = !this.paused;
      pause.textContent = this.paused ? "Resume" : "Pause";
      if (!this.paused) this.receive(this.frames.newest);
      showState(this.state, this.frames.newest, this.note());
    };
    this.maps = element("select", "", bar);
    this.maps.title = "colour map";
    for (const map of MAPS) element("option", "", this.maps, map).selected = map === this.model.get("cmap");
    this.maps.onchange = () => this.set("cmap", this.maps.value);
    this.low = this.makeLimit(bar, "from", "vmin");
    this.high = this.makeLimit(bar, "to", "vmax");
    const auto = element("button", "", bar, "Auto");
    auto.title = "let the range of values follow the frames";
    auto.onclick = () => {
      this.set("vmin", null);
      this.set("vmax", null);
    };
    this.state = element("span", "labhub-state", bar);
  }

  makeLimit(bar, label, trait) {
    const box = element("label", "", bar, `${label} `);
    const input = element("input", "", box);
    input.onchange = () => {
      const text = input.value.trim();
      const value = text === "" ? null : Number(text);
      const other = this.model.get(trait === "vmin" ? "vmax" : "vmin");
      const fits = value === null || other === null || (trait === "vmin" ? value < other : value > other);
      input.title = fits ? "" : `must be ${trait === "vmin" ? "less" : "more"} than ${other}`;
      input.classList.toggle("labhub-wrong", !fits || (value !== null && !Number.isFinite(value)));
      if (fits && (value === null || Number.isFinite(value))) this.set(trait, value);
    };
    return input;
  }

  // The page shows it at once; the kernel sends frames accordingly when it is idle.
  set(trait, value) {
    this.model.set(trait, value);
    this.model.save_changes();
  }

  receive(message) {
    this.removePicture();
    showState(this.state, message, this.note());
    if (!message?.buffers.length || this.paused) return;
    this.shown = message;
    this.redraw();
  }

  // Range of values that the colours span: the user's, else that of the frame.
  range() {
    const { low, high } = this.shown.meta;
    const from = this.model.get("vmin") ?? low;
    const to = this.model.get("vmax") ?? high;
    return to > from ? [from, to] : [from, from + Math.max(1, 254 * spacing(from))];
  }

  // The value of a code; sums and differences of the ends might be beyond all numbers.
  valueOf(code) {
    const { low, high } = this.shown.meta;
    const part = (code - 1) / 254;
    return low * (1 - part) + high * part;
  }

  // Where from 0 to 1 between two values a code is.
  placeOf(code, from, to) {
    const { low, high } = this.shown.meta;
    if (from === low && to === high) return (code - 1) / 254;
    const width = to - from;
    const value = this.valueOf(code);
    return Number.isFinite(width) ? (value - from) / width : (value / 2 - from / 2) / (to / 2 - from / 2);
  }

  // A value in the digits that tell the levels of the frame apart.
  words(value) {
    const { low, high, whole } = this.shown.meta;
    const step = Math.max((high / 2 - low / 2) / 127, spacing(low));
    return precise(whole ? Math.round(value) : value, step);
  }

  redraw() {
    if (!this.shown) return;
    this.canvas.hidden = this.histogram.hidden = false;
    const { width, height, rgb, raw } = this.shown.meta;
    const codes = bytes(this.shown.buffers[0]);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const [from, to] = this.range();
    const place = (code) => this.placeOf(code, from, to);
    if (rgb) {
      const level = Uint8ClampedArray.from({ length: 256 }, (_, code) => (code ? 255 * place(code) : 0));
      for (let i = 0, k = 0; i < image.data.length; i += 4, k += 3) {
        image.data[i] = level[codes[k]];
        image.data[i + 1] = level[codes[k + 1]];
        image.data[i + 2] = level[codes[k + 2]];
        image.data[i + 3] = 255;
      }
    } else {
      const colors = table(this.model.get("cmap"), place);
      const pixels = new Uint32Array(image.data.buffer);
      for (let i = 0; i < pixels.length; i++) pixels[i] = colors[codes[i]];
    }
    context.putImageData(image, 0, 0);
    this.codes = codes;
    this.raw = raw ? numbersOf(raw, this.shown.buffers[1]) : null;
    this.drawHistogram(codes, from, to);
    this.showLimits(from, to);
    this.showReadout();
    this.drawn += 1;
    this.root.dataset.frames = this.drawn;
    this.root.dataset.frame = this.shown.meta.frame;
    this.picture();
  }

  showLimits(from, to) {
    this.maps.hidden = this.shown.meta.rgb;
    for (const [input, value] of [[this.low, from], [this.high, to]])
      if (document.activeElement !== input) input.value = this.words(value);
  }

  drawHistogram(codes, from, to) {
    const theme = themeOf(this.root);
    const ratio = devicePixelRatio;
    const { width, height, labels } = HISTOGRAM;
    Object.assign(this.histogram, { width: width * ratio, height: (height + labels) * ratio });
    Object.assign(this.histogram.style, { width: `${width}px`, height: `${height + labels}px` });
    const context = this.histogram.getContext("2d");
    context.scale(ratio, ratio);
    const counts = new Uint32Array(256);
    for (let i = 0; i < codes.length; i++) counts[codes[i]] += 1;
    const most = Math.max(1, ...counts.subarray(1));
    const map = this.shown.meta.rgb ? "gray" : this.model.get("cmap");
    context.fillStyle = theme.tick;
    for (let code = 1; code < 256; code++) {
      // The square root lets small counts be seen beside large ones.
      const bar = Math.sqrt(counts[code] / most) * (height - 10);
      const x = ((code - 1) / 255) * width;
      context.fillRect(x, height - 8 - bar, width / 255 + 0.3, bar);
    }
    for (let x = 0; x < width; x++) {
      context.fillStyle = `rgb(${colorAt(map, this.placeOf(1 + (x / width) * 254, from, to))})`;
      context.fillRect(x, height - 7, 1.5, 7);
    }
    context.fillStyle = theme.text;
    context.font = theme.font.replace("12px", "11px");
    const unit = this.model.get("unit");
    const { low, high } = this.shown.meta;
    context.textBaseline = "top";
    context.textAlign = "left";
    context.fillText(this.words(low), 0, height + 2);
    context.textAlign = "right";
    context.fillText(this.words(high), width, height + 2);
    context.textAlign = "center";
    context.fillText(`value${unit ? ` (${unit})` : ""}, root of count`, width / 2, height + 2);
  }

  point(event) {
    const before = String(this.at);
    this.at = null;
    if (event && this.shown) {
      const box = this.canvas.getBoundingClientRect();
      const { width, height } = this.shown.meta;
      const x = Math.floor(((event.clientX - box.left) / box.width) * width);
      const y = Math.floor(((event.clientY - box.top) / box.height) * height);
      if (x >= 0 && y >= 0 && x < width && y < height) this.at = [x, y];
    }
    // What was not sent as it is the kernel tells with the next frames, unless it is busy.
    if (!this.raw && String(this.at) !== before) this.model.send({ pointer: this.at });
    this.showReadout();
  }

  showReadout() {
    if (!this.shown) return;
    const { full, factor, reduce, seq, rate } = this.shown.meta;
    const size = `${full[0]} × ${full[1]}`;
    const made = factor > 1 ? `, shown 1:${factor} (${reduce === "mean" ? "means" : "every " + factor + "th pixel"})` : "";
    const speed = rate === null || rate === undefined ? "" : `, ${short(Number(rate.toFixed(1)))} slots/s`;
    this.readout.textContent = this.at ? this.valueText() : `seq ${seq}${speed}, ${size}${made}`;
  }

  // The pixel itself where it was sent, else, with a "≈", the level between the ends of the frame's range.
  valueText() {
    const { width, factor, rgb, reduce, pixel } = this.shown.meta;
    const [x, y] = this.at;
    const unit = this.model.get("unit") ? ` ${this.model.get("unit")}` : "";
    const n = rgb ? 3 : 1;
    const first = (y * width + x) * n;
    const told = pixel && String(pixel.at) === String(this.at) ? pixel.texts : null;
    const mean = factor > 1 && reduce === "mean";
    const one = (c) => {
      if (this.raw) return String(this.raw[first + c]);
      if (!told) return this.levelText(this.codes[first + c]);
      return mean && Number.isFinite(Number(told[c])) ? `≈ ${this.words(Number(told[c]))}` : numberWords(told[c]);
    };
    const value = Array.from({ length: n }, (_, c) => one(c)).join(", ");
    const range = (a) => (mean ? `${a * factor}–${a * factor + factor - 1}` : a * factor);
    const how = mean ? ` (mean of ${factor} × ${factor} pixels)` : "";
    return `column ${range(x)}, row ${range(y)}: ${value}${unit}${how}`;
  }

  levelText(code) {
    if (code === 0) return "no number";
    const text = this.words(this.valueOf(code));
    return code === 1 ? `≤ ${text}` : code === 255 ? `≥ ${text}` : `≈ ${text}`;
  }

  note() {
    return this.paused ? "paused" : "live";
  }

  destroy() {
    this.stops.forEach((stop) => stop());
    this.root.remove();
  }
}

// Words of Python's for a number.
function numberWords(text) {
  return text === "nan" ? "no number" : text === "True" ? "1" : text === "False" ? "0" : text;
}

export default () => {
  const frames = new Frames();
  return {
    initialize: ({ model }) => frames.listen(model),
    render({ model, el }) {
      const view = new ImageView(model, frames, el);
      return () => view.destroy();
    },
  };
};
