// A line over the last quarter of an hour, drawn as SVG: two paths and a base line.

import { html } from "./parts.js";

const WIDTH = 300, HEIGHT = 52, SECONDS = 900;

function paths(points, most, end) {
  const runs = [];
  let run = [];
  for (const [time, value] of points) {
    if (value == null) {
      if (run.length) runs.push(run);
      run = [];
      continue;
    }
    const x = WIDTH * (1 - (end - time) / SECONDS);
    if (x >= 0) run.push([x, HEIGHT - 2 - (HEIGHT - 6) * (most ? value / most : 0)]);
  }
  if (run.length) runs.push(run);
  const line = (one) => one.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return {
    stroke: runs.map(line).join(""),
    area: runs.map((one) => `${line(one)}L${one.at(-1)[0].toFixed(1)} ${HEIGHT}L${one[0][0].toFixed(1)} ${HEIGHT}Z`).join(""),
  };
}

export function Line({ points, end, title, value, format, kind = "first" }) {
  const values = points.map(([, one]) => one).filter((one) => one != null);
  const most = Math.max(0, ...values);
  const { stroke, area } = paths(points, most, end);
  const words = values.length
    ? `${title}: now ${value}, most ${format(most)} in 15 minutes`
    : `${title}: nothing in 15 minutes`;
  return html`<figure>
    <figcaption><span>${title}</span><span><b>${value}</b>${most > 0 && html` · most ${format(most)}`}</span></figcaption>
    <svg class=${kind} viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${words}>
      <line class="base" x1="0" x2=${WIDTH} y1=${HEIGHT} y2=${HEIGHT} />
      <path class="area" d=${area} />
      <path class="stroke" d=${stroke} />
    </svg>
  </figure>`;
}
