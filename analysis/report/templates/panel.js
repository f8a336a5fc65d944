"use strict";
/* The chosen model, beside the picture: what it is, what it costs, how it came about, how to have it. */

const COST_ROWS = [["flops", "FLOPs"], ["params", "Parameters"], ["activations", "Activations"], ["latency", "Latency"]];

function select(id, quietly) {
  if (!page.rowOf.has(id)) { return; }
  page.selected = id;
  if (!quietly) { history.replaceState(null, "", "#trial-" + id); }
  byId("panel").replaceChildren(...panelParts(page.rowOf.get(id)));
  drawCurve(page.rowOf.get(id));
  if (page.plots.has("front")) { mark(); }
}

function panelParts(row) {
  const { trials } = page.data;
  return [
    element("h2", { tabindex: "-1", id: "panel-title" }, "Trial " + trials.id[row] + ", " + trials.method[row]),
    element("p", { class: "quiet" }, trials.ended[row] + " · ", element("a", { href: "#trial-" + trials.id[row] }, "link to this model")),
    reached(row),
    element("p", {}, trials.recipe[row]),
    trials.error[row] && trials.metric[row] === null ? element("pre", {}, trials.error[row]) : null,
    costsTable(row),
    curvePlace(row),
    widthsPart(row),
    lineagePart(row),
    commandsPart(row),
  ].filter((part) => part !== null);
}

function reached(row) {
  const { trials, metric, dense, finalists } = page.data, value = trials.metric[row], again = finalists[trials.id[row]];
  if (value === null) { return element("p", { class: "big" }, "no " + metric.name); }
  const ends = interval(value), part = element("div", {});
  part.append(element("p", { class: "big" }, (again ? again.validation : metricText(value)) + " " + metric.name));
  const against = differenceText(value - dense.metric) + " against the dense model";
  const range = ends && !again ? "; " + metricText(ends[0]) + " to " + metricText(ends[1]) + " as far as " + page.data.noise.images.toLocaleString("en") + " images can tell" : "";
  part.append(element("p", { class: "quiet" }, "on the validation split, " + against + range));
  if (again) {
    part.append(element("p", {}, "Trained again " + again.seeds + " times on " + again.images.toLocaleString("en") + " images: ",
      element("strong", {}, again.test + " on the test split"), (again.above ? ", " + again.above + " against the dense model trained as long" : "")
      + (again.searched ? ". The search had found " + again.searched + "." : ".")));
  }
  return part;
}

/* Wilson's interval, as the headline has it. */
function interval(value) {
  const { images } = page.data.noise;
  if (!images) { return null; }
  const share = 1.96 ** 2 / images, middle = (value + share / 2) / (1 + share);
  const half = Math.sqrt(Math.max(0, share * value * (1 - value) + share ** 2 / 4)) / (1 + share);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function costsTable(row) {
  const { trials, dense } = page.data, body = element("tbody");
  for (const [name, label] of COST_ROWS) {
    const ratio = trials[name][row];
    if (ratio === null) { continue; }
    const ms = trials.latency_ms[row];
    const own = name === "latency" ? (ms === null ? "–" : costText({ cost: "latency_ms" }, ms)) : amount(ratio * dense[name]);
    const whole = name === "latency" ? (ms === null ? "–" : costText({ cost: "latency_ms" }, ms / ratio)) : amount(dense[name]);
    body.append(element("tr", {}, element("th", { scope: "row" }, label, name === "latency" ? element("div", { class: "quiet" }, page.data.timed_how) : ""), element("td", { class: "num" }, own),
      element("td", { class: "num" }, whole), element("td", { class: "num" }, percent(ratio))));
  }
  if (!body.rows.length) { return null; }
  if (trials.latency_low[row] !== null) { body.append(spreadRow(row)); }
  const head = ["", "pruned", "dense", "share"].map((text) => element("th", { scope: "col", class: text ? "num" : "" }, text));
  return element("table", { class: "costs" }, element("thead", {}, element("tr", {}, ...head)), body);
}

/* The interval of the ratio that was measured, 95 % of what other measurements would give. */
function spreadRow(row) {
  const { trials } = page.data, low = trials.latency_low[row], high = trials.latency_high[row];
  const text = "measured in turns with the dense model: " + percent(low) + " to " + percent(high) + (low > 1 ? ", slower than the dense model" : high >= 1 ? ", not told from the dense model" : "");
  return element("tr", {}, element("td", { colspan: 4, class: "quiet" }, text));
}

function curvePlace(row) {
  const points = page.data.trials.rungs[row].length;
  const label = "Curve of " + page.data.metric.name + " over training images of the search";
  return points > 1 ? element("div", { id: "plot-curve", class: "curve", role: "img", "aria-label": label }) : null;
}

function drawCurve(row) {
  const place = byId("plot-curve");
  if (!place) { return; }
  const { trials, looks, metric } = page.data, rungs = trials.rungs[row];
  const line = { color: looks[trials.method[row]].colour, width: 2 };
  const trace = { x: rungs.map((one) => one[0]), y: rungs.map((one) => one[1]), mode: "lines+markers", line: line, hoverinfo: "x+y" };
  const axis = { zeroline: false, automargin: true, nticks: 4 };
  const layout = { height: 150, margin: { l: 40, r: 8, t: 6, b: 30 }, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...axis, title: { text: "training images", font: { size: 11 } }, tickformat: "~s" },
    yaxis: { ...axis, tickformat: metric.unit === "%" ? ".0%" : "~g" } };
  const figure = themed({ data: [trace], layout: layout }, false);
  Plotly.react(place, figure.data, figure.layout, { displayModeBar: false, responsive: true });
}

function widthsPart(row) {
  const { trials, groups, looks } = page.data, kept = trials.kept[row];
  if (!kept) { return null; }
  const body = element("tbody"), ink = looks[trials.method[row]].colour;
  groups.forEach((group, i) => {
    const bar = element("span", { class: "width" }, element("span", { style: "width:" + (100 * kept[i]) / group.size + "%;background:" + ink }));
    body.append(element("tr", {}, element("th", { scope: "row" }, group.id), element("td", {}, bar),
      element("td", { class: "num" }, kept[i] + "/" + group.size)));
  });
  return element("details", { open: "" }, element("summary", {}, "Channels kept, layer by layer"), element("table", { id: "panel-widths" }, body));
}

function lineagePart(row) {
  const { trials } = page.data, steps = [];
  for (let now = row; now !== undefined && trials.parent[now] !== null && steps.length < 50; now = page.rowOf.get(trials.parent[now])) {
    steps.push(trials.parent[now]);
  }
  if (!steps.length) { return null; }
  const part = element("p", { id: "panel-lineage" }, "Goes on from ");
  steps.forEach((id, i) => { part.append(i ? ", which goes on from " : "", showButton(id, "trial " + id)); });
  part.append(".");
  return part;
}

function commandsPart(row) {
  const { trials, folder } = page.data, id = trials.id[row], part = element("div", { id: "panel-commands" });
  const commands = trials.done[row] ? ["export " + folder + " --trial " + id + " --to trial-" + id] : [];
  for (const command of [...commands, "replay " + folder + " --trial " + id]) {
    part.append(element("p", { class: "copy" }, element("code", { class: "command" }, "autoprune " + command),
      element("button", { type: "button", "data-copy": "autoprune " + command }, "Copy")));
  }
  return part;
}

async function copy(button) {
  const text = button.dataset.copy;
  try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch {
    getSelection().selectAllChildren(button.previousElementSibling);
    button.textContent = "Press Ctrl+C";
  }
}
