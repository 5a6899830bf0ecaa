// The lines of a message of the kernel, and where on the axes their points are.
import { doubles } from "./common.js";
import { Range } from "./axes.js";
import { precise } from "./numbers.js";

// The kernel sends two points per column of a ring of columns: NaN where there is nothing, infinity where the line
// breaks, else numbers that are relative to a base of each line, which is a whole number of any size.
export class Picture {
  constructor({ meta, buffers }) {
    this.meta = meta;
    this.n = meta.n;
    this.begin = BigInt(meta.t0); // of the first point, in nanoseconds since the epoch
    this.step = BigInt(Math.round(meta.dt * 2e9)); // between every second point
    this.base = meta.base.map(BigInt);
    const ring = doubles(buffers[0]);
    this.lines = this.base.map((_, i) => this.unroll(ring, i * this.n));
    this.x = Array.from({ length: this.n }, (_, k) => k);
  }

  unroll(ring, begin) {
    const line = new Float64Array(this.n);
    line.set(ring.subarray(begin + this.meta.at, begin + this.n));
    line.set(ring.subarray(begin, begin + this.meta.at), this.n - this.meta.at);
    return line;
  }

  // Time of a place on the x axis, which counts points, in nanoseconds.
  timeAt(x) {
    return this.begin + (BigInt(Math.round(x * 1000)) * this.step) / 2000n;
  }

  placeOf(time) {
    return Number(time - this.begin) / (Number(this.step) / 2);
  }

  // The range of some lines between two places of the x axis; null if no number is there.
  range(which, [from, to]) {
    const bases = which.map((i) => this.base[i]);
    const base = bases.length && bases.every((b) => b !== 0n) ? bases[0] : 0n;
    let [low, high] = [Infinity, -Infinity];
    for (const i of which) {
      const shift = Number(this.base[i] - base);
      const line = this.lines[i];
      for (let k = Math.max(0, Math.ceil(from)); k < this.n && k <= to; k++) {
        const value = line[k];
        if (!Number.isFinite(value)) continue;
        if (value + shift < low) low = value + shift;
        if (value + shift > high) high = value + shift;
      }
    }
    return low <= high ? new Range(base, low, high) : null;
  }

  // A line as uPlot wants it: places on its axis, undefined where there is nothing, null where it breaks.
  places(i, range) {
    const shift = Number(this.base[i] - range.base);
    return Array.from(this.lines[i], (value) =>
      Number.isFinite(value) ? range.place(value + shift) : Number.isNaN(value) ? undefined : null,
    );
  }

  // The value of the point of a line that is the nearest one to a place, in words; empty if there is none.
  valueNear(i, at, span) {
    const line = this.lines[i];
    for (let k = 0; k < this.n; k++)
      for (const near of [at - k, at + k]) if (Number.isFinite(line[near])) return this.words(i, line[near], span);
    return "";
  }

  words(i, value, span) {
    if (Number.isInteger(value) && Math.abs(value) <= 2 ** 53 && this.base[i] !== 0n) return String(this.base[i] + BigInt(value));
    return valueWords(Number(this.base[i]) + value, span);
  }

  // The newest value of a line, in words.
  lastWords(i, span) {
    const last = this.meta.last[i];
    return typeof last === "number" ? valueWords(last, span) : String(last ?? "–");
  }
}

// A value in the digits that are seen on an axis of a span; whole numbers in all of theirs.
function valueWords(value, span) {
  return Number.isInteger(value) && Math.abs(value) < 1e15 ? String(value) : precise(value, span / 1000);
}
