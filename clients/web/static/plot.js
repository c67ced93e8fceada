/* The latency of each stage over the last minute, one above the other, as SVG. */

import { STAGES } from "/static/tables.js";

const POINTS = 120; // two snapshots a second
const WIDTH = 600;
const HEIGHT = 160;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

export class Plot {
  constructor(svg, top) {
    this.svg = svg;
    this.top = top;
    this.history = []; // for each snapshot: stream -> stage -> mean in ms
    this.areas = Object.keys(STAGES).map((name) => {
      const area = document.createElementNS("http://www.w3.org/2000/svg", "path");
      area.setAttribute("class", `stage-${name}`);
      svg.append(area);
      return [name, area];
    });
  }

  /** Take the streams of a snapshot. */
  add(streams) {
    const means = Object.entries(streams).map(([name, { stages }]) => [
      name, Object.fromEntries(Object.keys(STAGES).map((stage) => [stage, stages?.[stage]?.mean_ms ?? 0])),
    ]);
    this.history.push(Object.fromEntries(means));
    if (this.history.length > POINTS) this.history.shift();
  }

  /** Draw one stream. */
  draw(stream) {
    const seen = this.history.map((streams) => streams[stream] ?? {});
    const sums = seen.map((means) => Object.values(means).reduce((sum, mean) => sum + mean, 0));
    const highest = Math.max(...sums, 0);
    const scale = STEPS.find((step) => step >= highest) ?? highest;
    this.top.textContent = `full height: ${scale} ms`;
    let below = seen.map(() => 0);
    for (const [name, area] of this.areas) {
      const above = seen.map((means, i) => below[i] + (means[name] ?? 0));
      area.setAttribute("d", outline(below, above, scale));
      below = above;
    }
  }
}

/** The path around the area between two lines; the newest point is at the right edge. */
function outline(below, above, scale) {
  if (above.length < 2) return "";
  const x = (i) => (WIDTH - ((above.length - 1 - i) * WIDTH) / (POINTS - 1)).toFixed(1);
  const y = (value) => (HEIGHT - (value / scale) * HEIGHT).toFixed(1);
  const there = above.map((value, i) => `${x(i)},${y(value)}`);
  const back = below.map((value, i) => `${x(i)},${y(value)}`).reverse();
  return `M${[...there, ...back].join("L")}Z`;
}
