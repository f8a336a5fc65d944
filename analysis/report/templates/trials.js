"use strict";
/* The table of all trials: a hundred rows at a time, sorted and filtered over all of them. */
const PAGE_ROWS = 100;
const table = { rows: [], start: 0, column: null, down: false };

function trialColumns() {
  const { trials, metric } = page.data, ratio = (value) => percent(value);
  const all = [
    ["Trial", "id", String], ["Method", "method", String], ["Ended", "ended", String],
    [metric.name, "metric", metricText], ["FLOPs", "flops", ratio], ["Parameters", "params", ratio],
    ["Activations", "activations", ratio], ["Latency", "latency", ratio], ["ms", "latency_ms", (value) => value.toFixed(2)],
    ["Images", "images", (value) => value.toLocaleString("en")], ["Seconds", "seconds", (value) => value.toFixed(1)],
    ["Finished", "finished", durationText], ["Seed", "seed", String], ["What was varied", "varied", String],
    ["What the method found", "notes", String],
  ];
  return all.filter(([, field]) => trials[field].some((value) => value !== null && value !== ""));
}

function prepareTable() {
  table.columns = trialColumns();
  const head = element("tr", {});
  for (const [title, field] of table.columns) {
    const numeric = typeof page.data.trials[field].find((value) => value !== null) === "number";
    head.append(element("th", { scope: "col", class: numeric ? "num" : "", "data-field": field },
      element("button", { type: "button", class: "sort" }, title)));
  }
  byId("trials-table").tHead.replaceChildren(head);
  const { trials } = page.data;
  table.texts = trials.id.map((id, row) => (id + " " + trials.method[row] + " " + trials.ended[row] + " " + trials.varied[row]).toLowerCase());
  filterTrials("");
}

function filterTrials(text) {
  const wanted = text.toLowerCase(), all = page.data.trials.id.map((_, row) => row);
  table.rows = all.filter((row) => table.texts[row].includes(wanted));
  table.start = 0;
  byId("trials-count").textContent = text ? table.rows.length + " of " + all.length : "";
  sortRows();
}

function sortTrials(heading) {
  table.down = heading.getAttribute("aria-sort") === "ascending";
  table.column = heading.dataset.field;
  for (const other of heading.parentNode.cells) { other.removeAttribute("aria-sort"); }
  heading.setAttribute("aria-sort", table.down ? "descending" : "ascending");
  table.start = 0;
  sortRows();
}

function sortRows() {
  const values = page.data.trials[table.column];
  if (values) {
    const sign = table.down ? -1 : 1;
    table.rows.sort((a, b) => {
      if (values[a] === null || values[b] === null) { return (values[a] === null) - (values[b] === null); }
      return sign * (typeof values[a] === "string" ? values[a].localeCompare(values[b]) : values[a] - values[b]);
    });
  }
  showRows();
}

function showRows() {
  const { trials } = page.data, shown = table.rows.slice(table.start, table.start + PAGE_ROWS);
  byId("trials-table").tBodies[0].replaceChildren(...shown.map((row) => {
    const cells = table.columns.slice(1).map(([, field, show]) => element("td", {
      class: typeof trials[field][row] === "number" ? "num" : field === "varied" || field === "notes" ? "recipe" : "",
    }, trials[field][row] === null ? "–" : show(trials[field][row])));
    return element("tr", {}, element("th", { scope: "row", class: "num" }, showButton(trials.id[row], String(trials.id[row]))), ...cells);
  }));
  const last = table.start + shown.length;
  byId("trials-place").textContent = shown.length ? table.start + 1 + " to " + last + " of " + table.rows.length : "no rows";
  byId("trials-before").disabled = table.start === 0;
  byId("trials-after").disabled = last >= table.rows.length;
}

function turnPage(by) {
  table.start = Math.max(0, table.start + by * PAGE_ROWS);
  showRows();
}
