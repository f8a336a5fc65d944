"use strict";
/* Of a page that is served while a search runs: it asks for a newer state, and keeps what its reader has set. */
const LIVE_SECONDS = 5;
const KEPT = ["axis", "limit-cost", "limit-metric"];

async function lookAgain() {
  let stamp;
  try { stamp = await (await fetch("stamp")).text(); } catch { return; }
  if (stamp === document.documentElement.dataset.stamp) { return; }
  const set = Object.fromEntries(KEPT.filter(byId).map((id) => [id, byId(id).value]));
  sessionStorage.setItem("set", JSON.stringify({ ...set, selected: page.selected, y: window.scrollY }));
  location.reload();
}

function restore() {
  const set = JSON.parse(sessionStorage.getItem("set") || "null");
  sessionStorage.removeItem("set");
  if (!set || !page.plots.has("front")) { return; }
  if (set.axis && page.data.axes.some((axis) => axis.key === set.axis)) { byId("axis").value = set.axis; useAxis(set.axis); }
  for (const id of KEPT.slice(1).filter((id) => byId(id) && set[id])) { byId(id).value = set[id]; }
  if (byId("limit-cost")) { applyLimits(); }
  if (set.selected !== null) { select(set.selected, true); }
  drawFront().then(() => window.scrollTo({ top: set.y, behavior: "instant" }));
}

started.then(() => { restore(); setInterval(lookAgain, 1000 * LIVE_SECONDS); });
