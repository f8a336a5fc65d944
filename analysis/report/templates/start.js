"use strict";
/* Unpacks, draws the picture, listens. */

function complain(what) {
  const box = byId("script-error");
  box.textContent = "The page could not be drawn: " + what;
  box.hidden = false;
}

function onClick(event) {
  const button = event.target.closest("button");
  if (!button) { return; }
  if (button.dataset.range) { zoom(button.dataset.range); }
  if (button.dataset.copy) { copy(button); }
  if (button.matches(".sort")) { sortTrials(button.closest("th")); }
  if (button.dataset.show) {
    select(Number(button.dataset.show));
    byId("front").scrollIntoView({ block: "start" });
    byId("panel-title").focus({ preventScroll: true });
  }
}

/* What the hash names, else what the headline is about. */
function selectFirst() {
  const asked = /^#trial-(-?\d+)$/.exec(location.hash);
  const id = asked && page.rowOf.has(Number(asked[1])) ? Number(asked[1]) : page.data.chosen;
  if (id !== null) { select(id, true); }
}

function listen() {
  document.addEventListener("click", onClick);
  window.addEventListener("hashchange", () => { if (location.hash.startsWith("#trial-")) { selectFirst(); } });
  window.addEventListener("beforeprint", drawAll);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    page.plots.forEach((plot, name) => { if (plot.drawn) { draw(name); } });
    if (page.selected !== null) { drawCurve(page.rowOf.get(page.selected)); }
  });
  if (page.plots.has("front")) {
    const place = byId("plot-front");
    place.on("plotly_click", (event) => {
      const id = event.points[0].customdata;
      if (typeof id === "number") { select(id); }
    });
    place.addEventListener("keydown", walk);
    byId("axis").addEventListener("change", (event) => { useAxis(event.target.value); applyLimits(); drawFront(); });
    byId("save-svg").addEventListener("click", saveSvg);
    byId("save-pdf").addEventListener("click", savePdf);
    const noise = byId("noise");
    if (noise) { noise.addEventListener("change", () => showNoise(noise.checked)); }
  }
  if (byId("trials-table")) {
    byId("trials-filter").addEventListener("input", (event) => filterTrials(event.target.value));
    byId("trials-before").addEventListener("click", () => turnPage(-1));
    byId("trials-after").addEventListener("click", () => turnPage(1));
  }
}

async function start() {
  const [data, plotly] = await Promise.all([unpacked("data"), unpacked("plotly")]);
  page.data = JSON.parse(data);
  page.data.trials.id.forEach((id, row) => page.rowOf.set(id, row));
  document.head.append(element("script", {}, plotly));
  preparePlots(page.data.figures);
  let drawRest = () => {};
  if (page.plots.has("front")) { prepareFront(); drawRest = await drawFrontFirst(); }
  if (byId("limit-cost")) { prepareLimits(); }
  if (byId("panel")) { selectFirst(); }
  if (byId("trials-table")) { prepareTable(); }
  listen();
  page.ready = performance.now(); /* milliseconds since the page was asked for */
  document.documentElement.dataset.ready = "true";
  drawRest();
}

window.addEventListener("error", (event) => complain(event.message));
window.addEventListener("unhandledrejection", (event) => complain(event.reason));
const started = start();
