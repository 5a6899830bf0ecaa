// Numbers without rounding: sums of doubles and large whole numbers, and their decimal digits.
//
// A double has 53 bits, so near 1e17 it knows every 16th number only. What is compared, drawn and labelled here is a
// fraction of two BigInts, which is exact; it becomes a double again only as a place on the screen.

const VIEW = new DataView(new ArrayBuffer(8));

// Number of bits of a BigInt.
function bits(n) {
  return (n < 0n ? -n : n).toString(16).length * 4;
}

// [n, d] with number === n / d exactly, for any finite double.
export function fraction(number) {
  VIEW.setFloat64(0, number);
  const raw = VIEW.getBigUint64(0);
  const exponent = Number((raw >> 52n) & 0x7ffn);
  const mantissa = (raw & 0xfffffffffffffn) | (exponent ? 1n << 52n : 0n);
  const shift = (exponent || 1) - 1075;
  const n = (raw >> 63n ? -mantissa : mantissa) << BigInt(Math.max(0, shift));
  return [n, 1n << BigInt(Math.max(0, -shift))];
}

export function add([n, d], [m, e]) {
  return d === e ? [n + m, d] : [n * e + m * d, d * e];
}

// n / d as the nearest double, or nearly so, whatever the size of n and d.
export function ratio(n, d) {
  if (n === 0n) return 0;
  const shift = BigInt(Math.max(0, 64 - bits(n) + bits(d)));
  const drop = BigInt(Math.max(0, bits(n) - bits(d) - 64));
  const quotient = (n << shift) / (d << drop);
  return Number(quotient) * 2 ** -Number(shift) * 2 ** Number(drop);
}

export function floorDiv(n, d) {
  return n / d - BigInt(n % d < 0n);
}

// Distance from a number to the next larger one.
export function spacing(number) {
  const size = Math.abs(number);
  VIEW.setFloat64(0, size);
  VIEW.setBigUint64(0, VIEW.getBigUint64(0) + 1n);
  const next = VIEW.getFloat64(0);
  return Number.isFinite(next) ? next - size : spacing(size / 2) * 2;
}

// n * 10 ** exponent in decimal digits, without an exponent; zeros at the end stay, so that labels are alike.
export function plain(n, exponent) {
  const sign = n < 0n ? "-" : "";
  const digits = (n < 0n ? -n : n).toString();
  if (exponent >= 0) return n === 0n ? "0" : sign + digits + "0".repeat(exponent);
  const padded = digits.padStart(1 - exponent, "0");
  return `${sign}${padded.slice(0, exponent)}.${padded.slice(exponent)}`;
}

// The same with an exponent: 1.5e-16.
export function scientific(n, exponent) {
  if (n === 0n) return "0";
  const digits = (n < 0n ? -n : n).toString();
  const mantissa = digits.replace(/0+$/, "");
  const point = mantissa.length > 1 ? `${mantissa[0]}.${mantissa.slice(1)}` : mantissa;
  return `${n < 0n ? "-" : ""}${point}e${exponent + digits.length - 1}`;
}

// A double in so many digits that steps of `step` are seen, but no more than it has.
export function precise(value, step) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : String(value);
  const wanted = step > 0 && value !== 0 ? Math.ceil(Math.log10(Math.abs(value)) - Math.log10(step)) + 1 : 5;
  const digits = Number.isFinite(wanted) ? Math.min(17, Math.max(5, wanted)) : 17;
  const rounded = Number(value.toPrecision(digits));
  if (digits === 17 || !Number.isFinite(rounded)) return String(value).replace("e+", "e");
  const size = Math.abs(rounded);
  const long = rounded !== 0 && (size >= 10 ** Math.max(6, digits) || size < 1e-3);
  return (long ? rounded.toExponential() : String(rounded)).replace("e+", "e");
}
