// Bundles each widget into one module and one style sheet: node build.mjs <sources> <output directory>
import { build } from "esbuild";
import { join, resolve } from "node:path";

const [sources, outdir] = process.argv.slice(2);

await build({
  entryPoints: ["live_plot", "live_image", "browser"].map((name) => join(sources, `${name}.js`)),
  outdir,
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2021",
  nodePaths: [resolve("node_modules")],
  logLevel: "warning",
});
