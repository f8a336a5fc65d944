"use strict";
/* Draws the figures that the page holds, in its colours or in those of paper. */

/* Named one by one: plotly's own choice has a button that sends the chart to a server. */
const BUTTONS = ["zoom2d", "pan2d", "resetScale2d"];
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [BUTTONS] };
const PAPER = { width: 640, height: 420 };

function colour(name, onPaper) {
  return getComputedStyle(document.documentElement).getPropertyValue((onPaper ? "--paper-" : "--") + name).trim();
}

/* Page colours for everything that is not a method: axes, text, lines in ink, the rings of front members. */
function themed(figure, onPaper) {
  const ink = colour("ink", onPaper), rule = colour("rule", onPaper), back = colour("page", onPaper);
  const layout = Object.assign({}, figure.layout);
  layout.font = { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 };
  layout.hoverlabel = Object.assign({}, layout.hoverlabel, { bgcolor: back, bordercolor: rule, font: { color: ink } });
  for (const axis of ["xaxis", "yaxis"]) {
    layout[axis] = Object.assign({}, layout[axis], { gridcolor: rule, linecolor: rule, tickcolor: rule });
  }
  layout.shapes = (layout.shapes || []).map((shape) =>
    shape.name === "ink" ? Object.assign({}, shape, { line: Object.assign({}, shape.line, { color: ink }) }) : shape);
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("quiet", onPaper), activecolor: colour("accent", onPaper) };
  return { data: figure.data.map((trace) => inked(trace, ink)), layout: layout };
}

function inked(trace, ink) {
  const kind = String(trace.meta);
  if (kind === "ink") { return Object.assign({}, trace, { line: Object.assign({}, trace.line, { color: ink }) }); }
  if (!trace.marker || !trace.marker.line) { return trace; }
  const line = Object.assign({ color: kind === "stopped" ? trace.marker.color : ink }, trace.marker.line);
  return Object.assign({}, trace, { marker: Object.assign({}, trace.marker, { line: line }) });
}

function draw(name) {
  const plot = page.plots.get(name), figure = themed(plot.figure, false);
  plot.drawn = true;
  return Plotly.react(plot.element, figure.data, figure.layout, CONFIG);
}

/* On a narrow page the legend goes below the plot, where it does not take the plot's width. */
function fitted(figure, element) {
  if (figure.layout.showlegend === false || element.clientWidth > 620) { return figure; }
  figure.layout.legend = Object.assign({}, figure.layout.legend, { orientation: "h", y: -0.2, yanchor: "top" });
  figure.layout.margin = Object.assign({}, figure.layout.margin, { l: 44, r: 8, t: 26 });
  return figure;
}

/* Only the first picture is drawn at once; the others when they come near. */
function preparePlots(figures) {
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      near.unobserve(entry.target);
      draw(entry.target.id.replace("plot-", ""));
    }
  }, { rootMargin: "400px" });
  for (const [name, figure] of Object.entries(figures)) {
    const place = byId("plot-" + name);
    if (!place) { continue; }
    place.style.minHeight = figure.layout.height + "px"; /* so that nothing moves when it is drawn */
    page.plots.set(name, { figure: fitted(figure, place), element: place, drawn: false });
    if (name !== "front") { near.observe(place); }
  }
}

function drawAll() {
  for (const [name, plot] of page.plots) { if (!plot.drawn) { draw(name); } }
}

/* The picture as it stands, light, in a size for a paper. */
function paperImage() {
  const figure = themed(page.plots.get("front").figure, true);
  const layout = Object.assign({}, figure.layout, PAPER, {
    paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", shapes: figure.layout.shapes.filter((one) => one.name !== "chosen"),
  });
  layout.font = Object.assign({}, layout.font, { size: 11 });
  layout.legend = { itemsizing: "constant", tracegroupgap: 0, font: { size: 10 } };
  return Plotly.toImage({ data: figure.data, layout: layout }, Object.assign({ format: "svg" }, PAPER));
}

async function saveSvg() {
  const link = element("a", { href: await paperImage(), download: "front.svg" });
  link.click();
}

/* A PDF is printed by the browser: one page that holds the figure alone, as vectors. */
async function savePdf() {
  const image = element("img", { id: "paper", alt: "" });
  image.src = await paperImage();
  await image.decode();
  const sheet = element("style", {}, "@page { size: " + PAPER.width + "px " + PAPER.height + "px; margin: 0; }");
  document.body.append(image);
  document.head.append(sheet);
  document.documentElement.dataset.printing = "figure";
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.printing;
    image.remove();
    sheet.remove();
  }, { once: true });
  window.print();
}
