// Colour maps: a few colours of each, between which is interpolated. Code 0 stands for no number: transparent.

const ANCHORS = {
  gray: ["#000000", "#ffffff"],
  viridis: ["#440154", "#482878", "#3e4a89", "#31688e", "#26838e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"],
  magma: ["#000004", "#180f3d", "#440f76", "#721f81", "#9e2f7f", "#cd4071", "#f1605d", "#fd9668", "#feca8d", "#fcfdbf"],
  coolwarm: ["#3b4cc0", "#6788ee", "#9abbff", "#c9d7f0", "#edd1c2", "#f7a889", "#e26952", "#b40426"],
};

export const MAPS = Object.keys(ANCHORS);

function channels(hex) {
  return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
}

// [red, green, blue] at a place from 0 to 1.
export function colorAt(map, place) {
  const anchors = ANCHORS[map] ?? ANCHORS.gray;
  const at = Math.min(1, Math.max(0, place)) * (anchors.length - 1);
  const k = Math.min(anchors.length - 2, Math.floor(at));
  const [from, to] = [channels(anchors[k]), channels(anchors[k + 1])];
  return from.map((c, i) => Math.round(c + (to[i] - c) * (at - k)));
}

// RGBA of each code: `place` says where from 0 to 1 a code lies in the range that is shown.
export function table(map, place) {
  const rgba = new Uint8Array(256 * 4);
  for (let code = 1; code < 256; code++) rgba.set([...colorAt(map, place(code)), 255], 4 * code);
  return new Uint32Array(rgba.buffer);
}
