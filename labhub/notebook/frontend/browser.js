// A live table of channels: labhub.HubBrowser.
import "./common.css";
import { element, Frames, keepPicture, short, showState, watchState } from "./common.js";

const COLUMNS = [
  ["name", "channel"],
  ["slot", "slot"],
  ["units", "units"],
  ["rate", "slots/s"],
  ["rates", ""],
  ["pid", "producer"],
  ["readers", "readers"],
  ["age", "age"],
  ["liveness", "liveness"],
];
const SPARK = { width: 90, height: 18 };

function compare(a, b) {
  if (typeof a === "number" || typeof b === "number") return (a ?? -1) - (b ?? -1);
  return String(a ?? "").localeCompare(String(b ?? ""));
}

function sparkline(parent, rates) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("width", SPARK.width);
  svg.setAttribute("height", SPARK.height);
  const line = document.createElementNS(ns, "polyline");
  const most = Math.max(1e-9, ...rates);
  const points = rates.map((rate, k) => {
    const x = SPARK.width - 1 - (rates.length - 1 - k) * ((SPARK.width - 2) / 59);
    return `${x.toFixed(1)},${(SPARK.height - 2 - (rate / most) * (SPARK.height - 4)).toFixed(1)}`;
  });
  line.setAttribute("points", points.join(" "));
  line.setAttribute("fill", "none");
  line.setAttribute("stroke", "currentColor");
  svg.append(line);
  parent.append(svg);
}

class BrowserView {
  constructor(model, frames, el) {
    this.frames = frames;
    this.saved = model.get("rows"); // of the notebook, while there is no kernel
    const save = keepPicture(model, "rows", () => frames.newest?.meta.rows);
    this.root = element("div", "labhub labhub-browser", el);
    this.sortBy = "name";
    this.descending = false;
    const bar = element("div", "labhub-bar", this.root);
    element("b", "", bar, model.get("title"));
    this.filter = element("input", "", bar);
    this.filter.placeholder = "filter";
    this.filter.oninput = () => this.redraw();
    this.state = element("span", "labhub-state", bar);
    const table = element("table", "", this.root);
    const head = element("tr", "", element("thead", "", table));
    for (const [key, title] of COLUMNS) {
      const cell = element("th", "", head, title);
      if (title) cell.onclick = () => this.sort(key);
    }
    this.body = element("tbody", "", table);
    this.drawn = 0;
    this.redraw();
    this.stops = [
      frames.draw((message) => {
        showState(this.state, message, this.note());
        this.redraw();
        save();
        this.root.dataset.frames = this.drawn += 1;
      }),
      watchState(frames, this.state, () => this.note()),
    ];
  }

  sort(key) {
    this.descending = this.sortBy === key && !this.descending;
    this.sortBy = key;
    this.redraw();
  }

  rows() {
    const wanted = this.filter.value.trim().toLowerCase();
    const rows = (this.frames.newest?.meta.rows ?? this.saved).filter((row) => row.name.toLowerCase().includes(wanted));
    rows.sort((a, b) => compare(a[this.sortBy], b[this.sortBy]) * (this.descending ? -1 : 1));
    return rows;
  }

  redraw() {
    this.body.replaceChildren();
    for (const row of this.rows()) {
      const line = element("tr", "", this.body);
      line.dataset.liveness = row.liveness;
      for (const [key] of COLUMNS) {
        const cell = element("td", key, line);
        if (key === "rates") sparkline(cell, row.rates);
        else if (key === "age") cell.textContent = row.ageText;
        else if (key === "rate") cell.textContent = row.rate === null ? "–" : short(Number(row.rate.toPrecision(3)));
        else cell.textContent = row[key];
      }
    }
    if (!this.body.children.length) element("td", "", element("tr", "", this.body), "no channels").colSpan = COLUMNS.length;
  }

  note() {
    return "live";
  }

  destroy() {
    this.stops.forEach((stop) => stop());
    this.root.remove();
  }
}

export default () => {
  const frames = new Frames();
  return {
    initialize: ({ model }) => frames.listen(model),
    render({ model, el }) {
      const view = new BrowserView(model, frames, el);
      return () => view.destroy();
    },
  };
};
