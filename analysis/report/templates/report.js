"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = new Map();
  /* Named one by one: plotly's own choice has a button that sends the chart to a server. */
  const BUTTONS = ["toImage", "zoom2d", "pan2d", "resetScale2d"];
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [BUTTONS] };

  window.addEventListener("error", function (event) {
    const box = document.getElementById("script-error");
    box.textContent = "A plot could not be drawn: " + event.message;
    box.hidden = false;
  });

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  /* Page colours for everything that is not a method: axes, text, lines in ink, the rings of front members. */
  function themed(figure) {
    const ink = colour("ink"), rule = colour("rule"), page = colour("page");
    const layout = structuredClone(figure.layout);
    layout.font = { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 };
    layout.hoverlabel = Object.assign({}, layout.hoverlabel, { bgcolor: page, bordercolor: rule, font: { color: ink } });
    for (const axis of ["xaxis", "yaxis"]) {
      Object.assign(layout[axis], { gridcolor: rule, linecolor: rule, tickcolor: rule });
    }
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("accent") };
    const traces = structuredClone(figure.data);
    for (const trace of traces) {
      if (trace.meta === "ink") { trace.line.color = ink; }
      if (String(trace.meta).startsWith("front")) { trace.marker.line.color = ink; }
    }
    return { data: traces, layout: layout };
  }

  function draw(name) {
    const figure = themed(plots.get(name).figure);
    Plotly.react(plots.get(name).element, figure.data, figure.layout, CONFIG);
  }

  /* On a narrow page the legend goes below the plot, where it does not take the plot's width. */
  function placeLegend(figure, element) {
    if (figure.layout.showlegend === false || element.clientWidth > 720) { return; }
    figure.layout.legend = Object.assign({}, figure.layout.legend, { orientation: "h", y: -0.22, yanchor: "top" });
  }

  function show(id) {
    const trial = data.widths[id], widths = plots.get("widths");
    if (!trial || !widths) { return; }
    const bars = widths.figure.data[1];
    bars.y = trial.kept.map((kept, i) => kept / data.sizes[i]);
    bars.text = trial.kept.map((kept, i) => kept + "/" + data.sizes[i]);
    bars.marker.color = trial.colour;
    document.getElementById("widths-trial").value = id;
    document.getElementById("widths-text").textContent =
      trial.label + ". Channels kept: " + widths.figure.data[0].x.map((group, i) => group + " " + bars.text[i]).join(", ");
    draw("widths");
  }

  function zoom(range) {
    plots.get("front").figure.layout.yaxis.range = data.figures.front.layout.meta.ranges[range].slice();
    for (const button of document.querySelectorAll("[data-range]")) {
      button.setAttribute("aria-pressed", String(button.dataset.range === range));
    }
    draw("front");
  }

  function compare(a, b) {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  }

  function sort(heading) {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const column = heading.cellIndex, body = heading.closest("table").tBodies[0];
    for (const other of heading.parentNode.cells) { other.removeAttribute("aria-sort"); }
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = Array.from(body.rows);
    rows.sort((a, b) => (descending ? -1 : 1) * compare(a.cells[column].dataset.key, b.cells[column].dataset.key));
    body.append(...rows);
  }

  function filter(text) {
    const rows = Array.from(document.getElementById("trials-table").tBodies[0].rows);
    for (const row of rows) { row.hidden = !row.textContent.toLowerCase().includes(text.toLowerCase()); }
    const left = rows.filter((row) => !row.hidden).length;
    document.getElementById("trials-count").textContent = text ? left + " of " + rows.length : "";
  }

  for (const [name, figure] of Object.entries(data.figures)) {
    const element = document.getElementById("plot-" + name);
    if (!element) { continue; }
    placeLegend(figure, element);
    if (name === "widths") { element.style.minWidth = 24 * data.sizes.length + 80 + "px"; }
    plots.set(name, { figure: figure, element: element });
    draw(name);
  }

  if (plots.has("front")) {
    plots.get("front").element.on("plotly_click", (event) => show(String(event.points[0].customdata)));
  }
  document.addEventListener("click", function (event) {
    const button = event.target.closest("button");
    if (!button) { return; }
    if (button.dataset.range) { zoom(button.dataset.range); }
    if (button.matches(".sort")) { sort(button.closest("th")); }
    if (button.dataset.show) {
      show(button.dataset.show);
      document.getElementById("widths").scrollIntoView();
    }
  });
  const choice = document.getElementById("widths-trial");
  if (choice) {
    show(choice.value);
    choice.addEventListener("change", () => show(choice.value));
  }
  const search = document.getElementById("trials-filter");
  if (search) { search.addEventListener("input", () => filter(search.value)); }
  dark.addEventListener("change", () => plots.forEach((_, name) => draw(name)));
})();
