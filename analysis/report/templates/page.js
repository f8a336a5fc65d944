"use strict";
/* What all parts of the page share: its data, how numbers are shown, small helpers. */
const page = { data: null, rowOf: new Map(), plots: new Map(), axis: null, selected: null };

/* The page holds plotly and the data compressed, which makes it a third of the size. */
async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) { bytes[i] = text.charCodeAt(i); }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function byId(id) { return document.getElementById(id); }

/* An element with attributes and children; strings become text, never markup. */
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) { made.setAttribute(name, value); }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function escaped(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function percent(ratio, digits = 1) { return ratio === null ? "–" : (100 * ratio).toFixed(digits) + "\u00a0%"; }

function amount(value) {
  const short = { notation: "compact", maximumSignificantDigits: 3 };
  return value === null ? "–" : value.toLocaleString("en", short);
}

function metricText(value, digits = 2) {
  if (value === null || value === undefined) { return "–"; }
  const { unit } = page.data.metric;
  return unit === "%" ? percent(value, digits) : (Number(value.toPrecision(4)) + "\u00a0" + unit).trim();
}

function differenceText(value) {
  const { unit } = page.data.metric;
  const number = unit === "%" ? (100 * value).toFixed(1) : String(Number(value.toPrecision(3)));
  const signed = (value > 0 ? "+" : "") + number.replace("-", "\u2212");
  return signed + "\u00a0" + (unit === "%" ? "points" : unit);
}

function durationText(seconds) {
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  if (hours) { return hours + " h " + minutes + " min"; }
  return minutes ? minutes + " min " + (whole % 60) + " s" : whole + " s";
}

/* What a trial costs on an axis; null if it was not measured. */
function costOn(axis, row) {
  const value = page.data.trials[axis.cost][row];
  return value === null ? null : value * axis.factor;
}

function costText(axis, value) {
  if (axis.cost === "latency_ms") { return Number(value.toPrecision(3)) + "\u00a0ms"; }
  return axis.factor === 1 ? percent(value) : amount(value);
}

function better(one, other) { return page.data.metric.up ? one > other : one < other; }

function showButton(id, text) {
  return element("button", { type: "button", class: "link", "data-show": id }, text);
}
