// The ranges of a plot's axes, where their ticks are, and what is written at them.
//
// uPlot steps from tick to tick in doubles, and never arrives where a step is smaller than their spacing. So it is given
// places only: each axis has its own from 0 to PLACES, and ticks are found here, exactly.
import { add, floorDiv, fraction, plain, ratio, scientific, spacing } from "./numbers.js";

export const PLACES = 1000;
// Places beyond the picture are brought this near: a canvas need not know larger ones.
const FAR = 1e6;
const MARGIN = 0.06;
const TICK_PX = 30;
const LETTER_PX = 7;
const EDGE_PX = 16;
// Labels longer than this are written as differences from a number that stands in the axis' label.
const LABEL_LETTERS = 9;
const FROM_LETTERS = 21;

// The range of an axis: from `low - margin` to `high + margin`, both relative to a whole number, the base.
export class Range {
  constructor(base, low, high) {
    this.base = base;
    this.low = low;
    // Half of the width where the whole is no number.
    const half = Number.isFinite(high - low) ? (high - low) / 2 : high / 2 - low / 2;
    const size = Math.abs(Number(base)) + Math.max(Math.abs(low), Math.abs(high));
    const room = base === 0n ? 2 * spacing(Math.max(Math.abs(low), Math.abs(high))) : 0.5;
    this.margin = Math.max(high > low ? 2 * MARGIN * half : MARGIN * size || MARGIN, room);
    if (!Number.isFinite(this.margin)) this.margin = MARGIN * Number.MAX_VALUE;
    // A power of two near the width of the range: what is divided by it is not rounded.
    this.unit = 2 ** Math.min(1023, Math.max(-1074, Math.ceil(Math.log2(Math.max(half, this.margin)))));
    const margin = fraction(this.margin);
    this.begin = add(add([base, 1n], fraction(low)), [-margin[0], margin[1]]);
    const width = add(add(fraction(high), fraction(-low)), [2n * margin[0], margin[1]]);
    this.width = width;
    const [n, d] = fraction(this.unit);
    this.units = ratio(width[0] * d, width[1] * n); // width in units, near 1
  }

  // The width as a double, for how many digits to write.
  get span() {
    return this.units * this.unit;
  }

  // Where from 0 to PLACES a number relative to the base is.
  place(value) {
    const { low, unit } = this;
    const above = unit >= 1 ? value / unit - low / unit : (value - low) / unit;
    const place = (PLACES * (above + this.margin / unit)) / this.units;
    return Math.min(FAR, Math.max(-FAR, place));
  }

  // The ticks of an axis of so many pixels: places, labels, and what the labels are differences from.
  ticks(pixels) {
    const most = Math.max(2, Math.floor(pixels / TICK_PX));
    const [mantissa, exponent] = niceStep(this.width, most);
    // Everything in units of one step: a tick is a whole number of them.
    const [up, down] = exponent < 0 ? [1n, 10n ** BigInt(-exponent)] : [10n ** BigInt(exponent), 1n];
    const [n, d] = [this.begin[0] * down, this.begin[1] * up * mantissa];
    const first = -floorDiv(-n, d);
    const width = ratio(this.width[0] * down, this.width[1] * up * mantissa);
    const rest = ratio(first * d - n, d);
    const places = [];
    const numbers = [];
    for (let k = 0; k <= most + 1 && rest + k <= width; k++) {
      places.push((PLACES * (rest + k)) / width);
      numbers.push((first + BigInt(k)) * mantissa);
    }
    return { places, ...labels(numbers, exponent) };
  }
}

// 1, 2 or 5 times a power of ten, as [1n, exponent], such that at most `most` of them are in a width.
function niceStep([n, d], most) {
  const digits = n.toString().length - d.toString().length - most.toString().length - 1;
  for (let exponent = digits; ; exponent++) {
    const [up, down] = exponent < 0 ? [1n, 10n ** BigInt(-exponent)] : [10n ** BigInt(exponent), 1n];
    for (const mantissa of [1n, 2n, 5n]) if (mantissa * up * d * BigInt(most) >= n * down) return [mantissa, exponent];
  }
}

// Labels of numbers times a power of ten: as short as they can be, and each another one.
function labels(numbers, exponent) {
  const short = shortest(numbers, exponent);
  if (longest(short) <= LABEL_LETTERS || !numbers.length) return { labels: short, from: "" };
  // A round number near the middle, which stays as long as the line does not move far.
  const step = 10n ** BigInt(String(numbers.at(-1) - numbers[0]).length + 2);
  const middle = numbers[Math.floor(numbers.length / 2)];
  const round = floorDiv(middle + step / 2n, step) * step;
  const differences = shortest(numbers.map((n) => n - round), exponent);
  const size = round < 0n ? -round : round;
  const whole = plain(size, exponent).replace(/\.0+$|(\.\d*?)0+$/, "$1");
  const from = whole.length <= FROM_LETTERS ? whole : scientific(size, exponent);
  return round === 0n ? { labels: short, from: "" } : { labels: differences, from: `${round < 0n ? "+" : "−"} ${from}` };
}

// Plain numbers unless they are long, and much shorter with an exponent.
function shortest(numbers, exponent) {
  const all = numbers.map((n) => plain(n, exponent));
  if (longest(all) <= 6) return all;
  const other = numbers.map((n) => scientific(n, exponent));
  const saved = longest(all) - longest(other);
  return saved > (longest(all) > LABEL_LETTERS ? 0 : 2) ? other : all;
}

function longest(texts) {
  return Math.max(0, ...texts.map((text) => text.length));
}

// How wide an axis with these labels is.
export function axisSize(texts) {
  return 22 + LETTER_PX * Math.max(3, longest((texts ?? []).map(String)));
}

const SECOND = 1_000_000_000n;
const TIME_STEPS = [
  ...Array.from({ length: 9 }, (_, k) => [1n, 2n, 5n].map((m) => m * 10n ** BigInt(k))).flat(),
  ...[1n, 2n, 5n, 10n, 15n, 30n, 60n, 120n, 300n, 600n, 900n, 1800n].map((s) => s * SECOND),
  ...[1n, 2n, 3n, 6n, 12n, 24n, 48n, 120n, 240n].map((h) => h * 3600n * SECOND),
];

// The ticks of a time axis of so many pixels: `begin` in nanoseconds since the epoch, `width` in nanoseconds.
export function timeTicks(begin, width, pixels) {
  const offset = BigInt(-dateOf(begin).getTimezoneOffset()) * 60n * SECOND;
  for (const step of TIME_STEPS) {
    const digits = step % SECOND === 0n ? 0 : 9 - (String(step).length - 1);
    const days = width > 86_400n * SECOND;
    const letters = 8 + (digits && digits + 1) + (days ? 6 : 0);
    if (Number(step) * pixels < Number(width) * (letters * LETTER_PX + 20) && step !== TIME_STEPS.at(-1)) continue;
    const first = -floorDiv(-(begin + offset), step) * step - offset;
    const times = [];
    for (let time = first; time <= begin + width && times.length < 100; time += step) times.push(time);
    // A label at the right end would be cut off.
    const room = (time) => (Number(begin + width - time) / Number(width)) * pixels + EDGE_PX >= (letters * LETTER_PX) / 2;
    return { times, labels: times.map((time) => (room(time) ? timeLabel(time, digits, days) : "")) };
  }
}

function dateOf(time) {
  return new Date(Number(floorDiv(time, 1_000_000n)));
}

const two = (n) => String(n).padStart(2, "0");

function timeLabel(time, digits, days) {
  const at = dateOf(time);
  const part = String(time - floorDiv(time, SECOND) * SECOND).padStart(9, "0").slice(0, digits);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}${digits ? `.${part}` : ""}`;
  return days ? `${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}` : clock;
}

// The day of a time, unless it is today.
export function dayOf(time) {
  const at = dateOf(time);
  const text = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return text(at) === text(new Date()) ? "" : text(at);
}
