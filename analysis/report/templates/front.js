"use strict";
/* The picture: which cost it is drawn against, what is marked in it, limits, and the keyboard. */

function isMarks(trace) { return Array.isArray(trace.customdata) && trace.meta !== "peer"; }

/* Beyond so many marks those that are no members are drawn only once the page answers. */
const MANY = 1500;

function drawFront() { return draw("front"); }

async function drawFrontFirst() {
  const later = page.plots.get("front").figure.data.filter((trace) => trace.meta === "completed" || trace.meta === "stopped");
  const many = page.data.trials.id.length > MANY;
  if (many) { later.forEach((trace) => { trace.visible = false; }); }
  await drawFront();
  return () => {
    if (!many) { return; }
    later.forEach((trace) => { delete trace.visible; });
    setTimeout(drawFront, 100);
  };
}

function prepareFront() {
  const { trials } = page.data;
  for (const trace of page.plots.get("front").figure.data.filter(isMarks)) {
    trace.hovertext = trace.customdata.map((id) => hoverText(page.rowOf.get(id), trials));
  }
  const { done, metric } = page.data.trials, known = metric.filter((value, row) => value !== null && done[row]);
  page.metricRange = [Math.min(...known), Math.max(...known)];
  useAxis(page.data.axes[0].key);
}

function hoverText(row, trials) {
  const costs = page.data.axes.filter((axis) => axis.factor === 1 && costOn(axis, row) !== null);
  return [
    "<b>trial " + trials.id[row] + "</b>, " + escaped(trials.method[row]) + ", " + escaped(trials.ended[row]),
    escaped(page.data.metric.name) + " " + metricText(trials.metric[row]),
    costs.map((axis) => costText(axis, costOn(axis, row)) + " " + axis.cost.replace("latency_ms", "latency")).join(", "),
    escaped(trials.recipe[row]).replace(/(.{60,90}?) /g, "$1<br>"),
  ].join("<br>");
}

/* Marks, lines and band move to where another cost puts them. */
function useAxis(key) {
  const axis = page.data.axes.find((one) => one.key === key), { figure } = page.plots.get("front");
  const x = (id) => (page.rowOf.has(id) ? costOn(axis, page.rowOf.get(id)) : null);
  const y = (id) => page.data.trials.metric[page.rowOf.get(id)];
  page.axis = axis;
  for (const trace of figure.data) {
    if (isMarks(trace)) { trace.x = trace.customdata.map(x); }
    if (trace.meta === "peer") { trace.x = trace.customdata.map((costs) => costs[key] ?? null); }
    if (trace.name === "front" && trace.meta === "ink") { trace.x = axis.line.map(x); trace.y = axis.line.map(y); }
    if (trace.ids) { trace.x = trace.ids.map((id) => x(Number(id))); }
  }
  const share = axis.cost !== "latency_ms" && axis.factor === 1;
  const reached = figure.data.flatMap((trace) => (isMarks(trace) || trace.meta === "peer" ? trace.x : []));
  page.mostCost = reached.reduce((high, value) => Math.max(high, value ?? 0), share ? 1 : 0);
  const noise = figure.data.find((trace) => trace.meta === "noise");
  if (axis.low.length) { Object.assign(noise, band(axis, axis.line.map(x))); }
  Object.assign(figure.layout.xaxis, { range: [0, 1.04 * page.mostCost], tickformat: axis.tick_format, title: { text: axis.title } });
  mark();
}

/* Steps along the low ends, and back along the high ones. */
function band(axis, x) {
  const across = x.flatMap((value) => [value, value]).slice(1).concat(1.04 * page.mostCost);
  const low = axis.low.flatMap((value) => [value, value]), high = axis.high.flatMap((value) => [value, value]);
  return { x: across.concat(across.slice().reverse()), y: low.concat(high.reverse()) };
}

/* Shapes are cheap to move: the ring around the chosen mark, and the part that limits shut out. */
function shapes() {
  const [dense] = page.data.figures.front.layout.shapes, found = [dense];
  const grey = { type: "rect", fillcolor: "rgba(128,128,128,0.16)", line: { width: 0 }, layer: "below", name: "limit" };
  const { cost, metric } = limits(), up = page.data.metric.up;
  if (cost !== null) { found.push({ ...grey, x0: cost, x1: 10 * page.mostCost, yref: "paper", y0: 0, y1: 1 }); }
  if (metric !== null) {
    const [low, high] = page.data.figures.front.layout.meta.ranges.all;
    found.push({ ...grey, xref: "paper", x0: 0, x1: 1, y0: metric, y1: up ? low - 1 : high + 1 });
  }
  if (page.selected !== null) {
    const row = page.rowOf.get(page.selected), x = costOn(page.axis, row), y = page.data.trials.metric[row];
    const size = { x0: -12, x1: 12, y0: -12, y1: 12, xsizemode: "pixel", ysizemode: "pixel" };
    if (x !== null && y !== null) {
      found.push({ type: "circle", xanchor: x, yanchor: y, ...size, name: "chosen", line: { width: 3, color: colour("accent") } });
    }
  }
  return found;
}

function mark() {
  const plot = page.plots.get("front");
  plot.figure.layout.shapes = shapes();
  if (plot.drawn) { Plotly.relayout(plot.element, { shapes: themed(plot.figure, false).layout.shapes }); }
}

function zoom(range) {
  page.plots.get("front").figure.layout.yaxis.range = page.data.figures.front.layout.meta.ranges[range].slice();
  for (const button of document.querySelectorAll("[data-range]")) {
    button.setAttribute("aria-pressed", String(button.dataset.range === range));
  }
  drawFront();
}

function showNoise(on) {
  page.plots.get("front").figure.data.find((trace) => trace.meta === "noise").visible = on;
  drawFront();
}

/* The limits that the sliders stand at; null where one asks for nothing. */
function limits() {
  const cost = byId("limit-cost"), metric = byId("limit-metric");
  if (!cost) { return { cost: null, metric: null }; }
  const [low, high] = page.metricRange, share = Number(metric.value) / 1000;
  return {
    cost: Number(cost.value) >= 1000 ? null : (page.mostCost * Number(cost.value)) / 1000,
    metric: Number(metric.value) <= 0 ? null : page.data.metric.up ? low + share * (high - low) : high - share * (high - low),
  };
}

function limitMetric(value) {
  const [low, high] = page.metricRange;
  const share = page.data.metric.up ? (value - low) / (high - low) : (high - value) / (high - low);
  /* Half a step lower, so that a model just at the limit is in. */
  byId("limit-metric").value = Math.max(1, Math.floor(1000 * share));
  applyLimits();
}

function applyLimits() {
  const { cost, metric } = limits(), { trials } = page.data;
  const rows = trials.id.map((_, row) => row).filter((row) => {
    const spent = costOn(page.axis, row), reached = trials.metric[row];
    return trials.done[row] && spent !== null && (cost === null || spent <= cost) && (metric === null || !better(metric, reached));
  });
  byId("limit-cost-text").textContent = cost === null ? "any" : "≤ " + costText(page.axis, cost);
  byId("limit-metric-text").textContent = metric === null ? "any" : (page.data.metric.up ? "≥ " : "≤ ") + metricText(metric);
  byId("limit-result").replaceChildren(...limitResult(rows, cost === null && metric === null));
  mark();
}

function limitResult(rows, unlimited) {
  const { trials } = page.data;
  if (unlimited) { return ["Move a slider to say what a model may cost, or must reach."]; }
  if (!rows.length) { return ["No model meets that."]; }
  const cheapest = rows.reduce((a, b) => (costOn(page.axis, b) < costOn(page.axis, a) ? b : a));
  const best = rows.reduce((a, b) => (better(trials.metric[b], trials.metric[a]) ? b : a));
  const button = (row) => showButton(trials.id[row],
    "trial " + trials.id[row] + " (" + metricText(trials.metric[row], 1) + " at " + costText(page.axis, costOn(page.axis, row)) + ")");
  return [rows.length + (rows.length === 1 ? " model meets that. " : " models meet that. "),
    "Cheapest: ", button(cheapest), ", best: ", button(best), "."];
}

function prepareLimits() {
  for (const id of ["limit-cost", "limit-metric"]) { byId(id).addEventListener("input", applyLimits); }
  const near = byId("near-dense");
  if (near) { near.addEventListener("click", () => limitMetric(page.data.dense.metric - 0.01)); }
  applyLimits();
}

/* Arrows walk along the front; with shift over all that is drawn. */
function walk(event) {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") { return; }
  event.preventDefault();
  const { trials } = page.data;
  const rows = event.shiftKey
    ? trials.id.map((_, row) => row).filter((row) => trials.metric[row] !== null && costOn(page.axis, row) !== null)
    : page.axis.line.map((id) => page.rowOf.get(id));
  rows.sort((a, b) => costOn(page.axis, a) - costOn(page.axis, b));
  if (!rows.length) { return; }
  const now = rows.findIndex((row) => trials.id[row] === page.selected);
  const next = now < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, now + (event.key === "ArrowRight" ? 1 : -1)));
  select(trials.id[rows[next]]);
}
