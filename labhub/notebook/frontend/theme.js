// Colours of JupyterLab's theme, or of the page where there is no JupyterLab.

const SERIES_LIGHT = ["#0072b2", "#d55e00", "#00875a", "#b0408a", "#7a5200", "#5b3fb5", "#c62828", "#3d6b7d"];
const SERIES_DARK = ["#56b4e9", "#ff9b4a", "#3fd0a0", "#e79ac9", "#f0e442", "#a99bff", "#ff7b7b", "#9cc7d6"];

function brightness(color) {
  const parts = color.match(/[\d.]+/g)?.map(Number);
  if (!parts || parts.length < 3 || parts[3] === 0) return null;
  return (0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]) / 255;
}

// Whether the page behind `el` is dark; looks at what is drawn there, which is true of every front end and theme.
function isDark(el) {
  for (let node = el; node; node = node.parentElement) {
    const found = brightness(getComputedStyle(node).backgroundColor);
    if (found !== null) return found < 0.5;
  }
  return false;
}

export function themeOf(el) {
  const style = getComputedStyle(el);
  const dark = isDark(el);
  const variable = (name, light, darkValue) => style.getPropertyValue(name).trim() || (dark ? darkValue : light);
  return {
    dark,
    text: variable("--jp-ui-font-color1", "#222", "#ddd"),
    grid: dark ? "rgba(255,255,255,0.13)" : "rgba(0,0,0,0.1)",
    tick: dark ? "rgba(255,255,255,0.4)" : "rgba(0,0,0,0.35)",
    background: variable("--jp-layout-color0", "#fff", "#111"),
    warning: dark ? "#ff7b7b" : "#c62828",
    font: `12px ${style.getPropertyValue("--jp-ui-font-family").trim() || "sans-serif"}`,
    series: dark ? SERIES_DARK : SERIES_LIGHT,
  };
}

// Calls `changed` when the theme changes; returns what stops that.
export function watchTheme(changed) {
  const observer = new MutationObserver(() => requestAnimationFrame(changed));
  for (const node of [document.documentElement, document.body])
    observer.observe(node, { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-light", "data-jp-theme-name"] });
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", changed);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", changed);
  };
}
