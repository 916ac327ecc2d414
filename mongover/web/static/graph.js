// The graph of revisions: a lane for each schema, the newest revision on top.

import { h, s, said, chip } from "./dom.js";

const ROW = 44;
const LANE = [26, 18]; // with few lanes, and with many
const MANY = 6;
const LEFT = 16;
const HUES = 8;

/** Where every revision stands, and in which colour: the newest on top, its schema's lane. */
export function layout(revisions) {
  const lanes = assign(revisions);
  const rows = new Map();
  const pitch = LANE[lanes.total > MANY ? 1 : 0];
  revisions.forEach((revision, index) => {
    const { schema, lane } = lanes.places.get(revision.revision);
    const row = revisions.length - 1 - index;
    const x = LEFT + (lanes.offsets.get(schema) + lane) * pitch;
    rows.set(revision.revision, { row, x, y: row * ROW + ROW / 2, hue: lanes.hues.get(schema), revision });
  });
  return { rows, width: LEFT * 2 + Math.max(0, lanes.total - 1) * pitch, hues: lanes.hues };
}

// A revision follows its parent's lane while it is the first to do so; a second head gets its own.
function assign(revisions) {
  const places = new Map();
  const tips = new Map();
  for (const revision of revisions) {
    const schema = revision.schema ?? "";
    const known = tips.get(schema) ?? [];
    tips.set(schema, known);
    const found = known.findIndex((tip) => revision.down_revision.includes(tip));
    const lane = found >= 0 ? found : known.length;
    known[lane] = revision.revision;
    places.set(revision.revision, { schema, lane });
  }
  const offsets = new Map();
  const hues = new Map();
  let total = 0;
  for (const [schema, known] of tips) {
    offsets.set(schema, total);
    hues.set(schema, hues.size % HUES);
    total += known.length;
  }
  return { places, offsets, hues, total };
}

function link(child, parent, kind) {
  const [x1, y1, x2, y2] = [child.x, child.y, parent.x, parent.y];
  const names = `${kind} hue-${parent.hue}`;
  const data = { "data-from": child.revision.revision, "data-to": parent.revision.revision };
  if (kind === "line" && x1 === x2) return s("path", { class: names, d: `M${x1} ${y1}V${y2}`, ...data });
  // A dependency comes in beside the line of its lane, so that it does not hide it.
  const side = kind === "need" ? (x1 < x2 ? -6 : x1 > x2 ? 6 : 9) : 0;
  const bend = Math.min(ROW, Math.abs(y2 - y1)) * 0.8 * Math.sign(y2 - y1);
  const curve = `M${x1} ${y1}C${x1} ${y1 + bend} ${x2 + side} ${y1 + bend * 0.2} ${x2 + side} ${y1 + bend}`;
  return s("path", { class: names, d: `${curve}V${y2 - Math.sign(y2 - y1) * 4}L${x2} ${y2}`, ...data });
}

function links(rows) {
  const paths = [];
  for (const place of rows.values()) {
    for (const [kind, names] of [["line", place.revision.down_revision], ["need", place.revision.depends_on]]) {
      for (const name of names) if (rows.has(name)) paths.push(link(place, rows.get(name), kind));
    }
  }
  return paths.sort((a, b) => (a.classList.contains("need") ? 0 : 1) - (b.classList.contains("need") ? 0 : 1));
}

const SIGNS = { applied: "", pending: "", applying: "↻", reverting: "↻", failed: "✕", interrupted: "!", reverted: "" };

function dot(place) {
  const { state, applied } = place.revision;
  const names = `dot hue-${place.hue} ${applied ? "is-applied" : "is-open"} is-${state}`;
  const sign = SIGNS[state] ?? "?";
  const circle = s("circle", { class: names, cx: place.x, cy: place.y, r: sign ? 9 : 7 });
  if (!sign) return [circle];
  return [circle, s("text", { class: "sign", x: place.x, y: place.y + 4 }, sign)];
}

function drawing({ rows, width }) {
  const height = rows.size * ROW;
  const dots = [...rows.values()].flatMap(dot);
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  return s("svg", { class: "lanes", "aria-hidden": "true", focusable: "false", ...size }, links(rows), dots);
}

function linksText(revision) {
  const words = [];
  if (revision.down_revision.length) words.push(`revises ${revision.down_revision.join(", ")}`);
  if (revision.depends_on.length) words.push(`depends on ${revision.depends_on.join(", ")}`);
  return words.join("; ");
}

function row(place, open) {
  const { revision } = place;
  const { state } = revision;
  const file = revision.file && revision.file !== "same" ? h("span", { class: "tag is-bad" }, revision.file) : null;
  const extra = linksText(revision);
  return h("li", { class: `hue-${place.hue}` }, h("button",
    { type: "button", class: "revision", "data-key": `graph ${revision.revision}`, "data-id": revision.revision, onclick: () => open(revision.revision), title: extra },
    h("code", { class: "id" }, said(revision.revision)),
    h("span", { class: "message" }, said(revision.message || "no message")),
    chip(revision.schema),
    h("span", { class: `tag is-${state}` }, state),
    file,
    extra ? h("span", { class: "visually-hidden" }, `, ${extra}`) : null));
}

/** The drawing and its list of revisions; `open` is called with the id of a chosen one. */
export function drawGraph(revisions, open) {
  const placed = layout(revisions);
  const svg = drawing(placed);
  const list = h("ol", { class: "rows", reversed: true }, [...placed.rows.values()].reverse().map((place) => row(place, open)));
  const mark = (event) => highlight(svg, event.target.closest?.("[data-id]")?.dataset.id);
  for (const name of ["pointerover", "focusin"]) list.addEventListener(name, mark);
  for (const name of ["pointerleave", "focusout"]) list.addEventListener(name, () => highlight(svg, undefined));
  return h("div", { class: "canvas" }, svg, list);
}

function highlight(svg, id) {
  for (const path of svg.querySelectorAll(".hot")) path.classList.remove("hot");
  svg.classList.toggle("has-hot", id !== undefined);
  if (id === undefined) return;
  const name = CSS.escape(id);
  for (const path of svg.querySelectorAll(`[data-from="${name}"], [data-to="${name}"]`)) path.classList.add("hot");
}

/** The names of the lanes, from the left. */
export function drawLegend(revisions) {
  const { hues } = layout(revisions);
  const names = [...hues].map(([schema, hue]) => h("span", { class: `lane hue-${hue}` }, said(schema || "unnamed")));
  const keys = [["is-applied", "applied"], ["is-open", "pending"]].map(([kind, word]) => h("span", { class: `key ${kind}` }, word));
  return [...names, ...keys, h("span", { class: "key is-need" }, "depends on")];
}
