// A live plot of channels over time: labhub.LivePlot.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import "./common.css";
import { element, Frames, keepPicture, short, showPicture, showState, watchState } from "./common.js";
import { axisSize, dayOf, PLACES, Range, timeTicks } from "./axes.js";
import { Picture } from "./lines.js";
import { themeOf, watchTheme } from "./theme.js";

const SHARES = [1, 0.5, 0.2, 0.1, 0.05, 0.02];

// The fewest points that a zoom shows.
const NARROWEST = 4;
const EMPTY_RANGE = new Range(0n, 0, 1);

// What an axis shows: the names of its lines where that says something and is short.
function axisLabel(names, several) {
  const what = names.length === 1 || several ? names.join(", ") : "value";
  return what.length > 40 ? "value" : what;
}

class PlotView {
  constructor(model, frames, el) {
    this.model = model;
    this.frames = frames;
    this.root = element("div", "labhub labhub-plot", el);
    this.paused = false;
    this.zoomed = false;
    this.ranges = []; // of the y axes, one for each unit
    this.held = null; // the same while they are held
    this.hidden = new Set();
    this.labels = []; // of the ticks of each axis, and what they are differences from
    this.from = [];
    this.share = 1;
    this.shown = null; // what is drawn: the picture of the newest message, unless paused
    this.drawn = 0;
    this.makeBar();
    this.removePicture = showPicture(model, frames, this.root);
    this.canvas = element("div", "labhub-canvas", this.root);
    this.legend = element("div", "labhub-legend", this.root);
    this.picture = keepPicture(model, "picture", () => this.plot && this.toPicture());
    this.stops = [
      frames.draw((message) => this.receive(message)),
      watchTheme(() => this.rebuild()),
      watchState(frames, this.state, () => this.note()),
      this.watchSize(),
      this.watchModel(),
    ];
  }

  makeBar() {
    const bar = element("div", "labhub-bar", this.root);
    element("b", "", bar, this.model.get("title"));
    this.pauseButton = element("button", "", bar, "Pause");
    this.pauseButton.onclick = () => this.setPaused(!this.paused);
    const reset = element("button", "", bar, "Reset");
    reset.title = "show the whole window again (or double-click); drag in the plot to zoom";
    reset.onclick = () => this.reset();
    this.holdButton = element("button", "", bar, "Hold y");
    this.holdButton.title = "keep the ranges of the y axes as they are";
    this.holdButton.onclick = () => this.toggleHold();
    this.windows = element("select", "", bar);
    this.windows.title = "window";
    this.windows.onchange = () => {
      this.share = Number(this.windows.value);
      this.model.set("share", this.share); // the kernel refines the columns when it is idle
      this.model.save_changes();
      this.redraw();
    };
    this.listWindows();
    this.state = element("span", "labhub-state", bar);
  }

  listWindows() {
    this.windows.replaceChildren();
    for (const share of SHARES) {
      const option = element("option", "", this.windows, `${short(this.model.get("window") * share)} s`);
      option.value = share;
      option.selected = share === this.share;
    }
  }

  watchModel() {
    const again = () => {
      this.listWindows();
      this.rebuild();
    };
    this.model.on("change:window", again);
    this.model.on("change:series", again);
    return () => {
      this.model.off("change:window", again);
      this.model.off("change:series", again);
    };
  }

  watchSize() {
    const observer = new ResizeObserver(() => {
      if (this.plot && this.canvas.clientWidth) this.plot.setSize(this.size());
    });
    observer.observe(this.canvas);
    return () => observer.disconnect();
  }

  size() {
    return { width: Math.max(200, this.canvas.clientWidth), height: this.model.get("height") };
  }

  // One y scale and axis for each unit, the first on the left.
  units() {
    return [...new Set(this.model.get("series").map((s) => s.unit))];
  }

  options() {
    const theme = (this.theme = themeOf(this.root));
    const series = this.model.get("series");
    const units = this.units();
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
      scales: {
        x: { time: false, range: () => this.xRange() },
        ...Object.fromEntries(units.map((unit, i) => [`y${i}`, { range: () => [0, PLACES] }])),
      },
      series: [
        {},
        ...series.map((s, i) => ({
          label: s.label,
          scale: `y${units.indexOf(s.unit)}`,
          stroke: this.colorOf(i),
          width: 1.25,
          points: { show: false },
          show: !this.hidden.has(i),
        })),
      ],
      axes: this.axes(theme, series, units),
      hooks: {
        setSelect: [(u) => this.zoom(u)],
        setCursor: [() => this.showValues()],
        draw: [(u) => this.drawLosses(u)],
      },
    };
  }

  axes(theme, series, units) {
    const look = {
      font: theme.font,
      labelFont: theme.font,
      labelSize: 20,
      ticks: { stroke: theme.tick, width: 1 },
      // uPlot looks for a step of its own first; any will do, because the ticks come from `splits`.
      incrs: [1e9],
      values: (u, splits, axis) => this.labels[axis],
    };
    const grid = { stroke: theme.grid, width: 1 };
    const time = {
      ...look,
      grid,
      stroke: theme.text,
      label: () => this.timeLabel(),
      size: 34,
      splits: (u) => this.timeSplits(u),
    };
    const values = units.map((unit, i) => {
      const mine = series.flatMap((s, k) => (s.unit === unit ? [k] : []));
      const label = axisLabel(mine.map((k) => series[k].label), units.length > 1);
      return {
        ...look,
        grid: { ...grid, show: i === 0 },
        // An axis of one line among several has its colour, so that it is seen which is whose.
        stroke: mine.length === 1 && series.length > 1 ? this.colorOf(mine[0]) : theme.text,
        scale: `y${i}`,
        side: i ? 1 : 3,
        label: () => `${label}${this.from[i + 1] ? ` ${this.from[i + 1]}` : ""}${unit ? ` (${unit})` : ""}`,
        splits: (u) => this.splits(u, i),
        size: (u, labels) => axisSize(labels),
      };
    });
    return [time, ...values];
  }

  // Places of the ticks of the y axis of a unit; what is written at them is kept for `values` and `label`.
  splits(u, i) {
    const { places, labels, from } = (this.ranges[i] ?? EMPTY_RANGE).ticks(u.over.clientHeight || u.height);
    this.labels[i + 1] = labels;
    this.from[i + 1] = from;
    return places;
  }

  timeSplits(u) {
    const [from, to] = this.xRange().map((x) => this.shown.timeAt(x));
    const { times, labels } = timeTicks(from, to - from, u.over.clientWidth || u.width);
    this.labels[0] = labels;
    return times.map((time) => this.shown.placeOf(time));
  }

  timeLabel() {
    const day = this.shown && dayOf(this.shown.timeAt(this.xRange()[1]));
    return `time (local${day ? `, ${day}` : ""})`;
  }

  colorOf(i) {
    return this.theme.series[i % this.theme.series.length];
  }

  // In points of the picture, which a double can tell apart at any time since the epoch.
  xRange() {
    if (this.zoomed) return this.zoomed;
    if (!this.shown) return [0, 1];
    const { n, meta } = this.shown;
    return [n - Math.max(NARROWEST, Math.min((this.model.get("window") * this.share) / meta.dt, n)), n];
  }

  // The ranges of the y axes: of what is seen, or as they are held.
  findRanges() {
    const series = this.model.get("series");
    this.ranges = this.units().map((unit, i) => {
      if (this.held?.[i]) return this.held[i];
      const seen = series.flatMap((s, k) => (s.unit === unit && !this.hidden.has(k) ? [k] : []));
      return this.shown.range(seen, this.xRange()) ?? EMPTY_RANGE;
    });
  }

  rangeOf(i) {
    return this.ranges[this.units().indexOf(this.model.get("series")[i].unit)] ?? EMPTY_RANGE;
  }

  receive(message) {
    this.removePicture();
    showState(this.state, message, this.note());
    if (!message.buffers.length) return;
    if (!this.paused && !this.zoomed) {
      this.shown = new Picture(message);
      this.redraw();
    }
  }

  redraw() {
    if (!this.shown || !this.canvas.clientWidth) return;
    const series = this.model.get("series");
    if (this.shown.base.length !== series.length) return; // the channel changed: a frame of before
    this.findRanges();
    const data = [this.shown.x, ...series.map((_, i) => this.shown.places(i, this.rangeOf(i)))];
    if (this.plot) this.plot.setData(data);
    else this.plot = new uPlot(this.options(), data, this.canvas);
    if (!this.rows) this.makeLegend();
    this.showValues();
    this.drawn += 1;
    this.root.dataset.frames = this.drawn;
    this.root.dataset.frame = this.shown.meta.frame;
    this.picture();
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    this.rows = null;
    this.redraw();
  }

  makeLegend() {
    this.legend.replaceChildren();
    this.rows = this.model.get("series").map((s, i) => {
      const row = element("div", this.hidden.has(i) ? "off" : "", this.legend);
      row.title = "click to hide or show";
      element("i", "", row).style.background = this.colorOf(i);
      element("span", "", row, `${s.label}: `);
      row.onclick = () => this.toggle(i, row);
      return element("b", "", row);
    });
  }

  toggle(i, row) {
    if (!this.hidden.delete(i)) this.hidden.add(i);
    row.className = this.hidden.has(i) ? "off" : "";
    this.plot?.setSeries(i + 1, { show: !this.hidden.has(i) });
    this.redraw();
  }

  // Values under the pointer, or the newest ones.
  showValues() {
    const index = this.plot?.cursor.idx;
    const series = this.model.get("series");
    this.rows?.forEach((cell, i) => {
      const { span } = this.rangeOf(i);
      const under = index === null || index === undefined ? "" : this.shown.valueNear(i, index, span);
      cell.textContent = `${under || this.shown.lastWords(i, span)}${series[i].unit ? ` ${series[i].unit}` : ""}`;
    });
  }

  drawLosses(u) {
    const { left, top, width, height } = u.bbox;
    const context = u.ctx;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    context.strokeStyle = context.fillStyle = this.theme.warning;
    context.font = this.theme.font.replace("12px", `${Math.round(11 * devicePixelRatio)}px`);
    context.textBaseline = "top";
    context.setLineDash([4, 3]);
    for (const [time, count] of this.shown?.meta.losses ?? []) {
      const x = Math.round(u.valToPos(time / this.shown.meta.dt, "x", true)) + 0.5; // from the first point on
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, top + height);
      context.stroke();
      const text = `lost ${count}`;
      const right = x + 6 + context.measureText(text).width < left + width;
      context.textAlign = right ? "left" : "right";
      context.fillText(text, x + (right ? 3 : -3), top + 3);
    }
    context.restore();
  }

  zoom(u) {
    if (u.select.width < 4) return;
    const from = u.posToVal(u.select.left, "x");
    const to = u.posToVal(u.select.left + u.select.width, "x");
    const room = Math.max(0, NARROWEST - (to - from)) / 2;
    this.zoomed = [from - room, to + room];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.redraw();
    showState(this.state, this.frames.newest, this.note());
  }

  reset() {
    this.zoomed = false;
    this.held = null;
    this.holdButton.textContent = "Hold y";
    if (!this.paused && this.frames.newest?.buffers.length) this.shown = new Picture(this.frames.newest);
    this.redraw();
  }

  setPaused(paused) {
    this.paused = paused;
    this.pauseButton.textContent = paused ? "Resume" : "Pause";
    this.root.dataset.paused = paused;
    if (!paused) this.reset();
    showState(this.state, this.frames.newest, this.note());
  }

  toggleHold() {
    const hold = !this.held;
    this.held = hold && this.plot ? this.ranges : null;
    this.holdButton.textContent = hold ? "Free y" : "Hold y";
    this.redraw();
  }

  note() {
    if (this.paused) return "paused";
    if (this.zoomed) return "zoomed; Reset goes on";
    const lost = this.frames.newest?.meta.lost;
    return lost ? `live, lost ${lost}` : "live";
  }

  // The canvas on the theme's background: uPlot's own is transparent.
  toPicture() {
    const { canvas } = this.plot.ctx;
    const copy = document.createElement("canvas");
    copy.width = canvas.width;
    copy.height = canvas.height;
    const context = copy.getContext("2d");
    context.fillStyle = this.theme.background;
    context.fillRect(0, 0, copy.width, copy.height);
    context.drawImage(canvas, 0, 0);
    return copy.toDataURL("image/png");
  }

  destroy() {
    this.stops.forEach((stop) => stop());
    this.plot?.destroy();
    this.root.remove();
  }
}

export default () => {
  const frames = new Frames();
  return {
    initialize: ({ model }) => frames.listen(model),
    render({ model, el }) {
      const view = new PlotView(model, frames, el);
      view.canvas.ondblclick = () => view.reset();
      return () => view.destroy();
    },
  };
};
