// Elements made without markup: whatever a person wrote stays text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element; `onclick` and the like are listeners, strings become text. */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An element of a drawing. */
export function s(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Text that a person wrote, kept from turning its neighbours around. */
export const said = (text, properties) => h("bdi", { dir: "auto", ...properties }, String(text ?? ""));

/** A sentence whose `commands` stand between backticks. */
export function prose(text) {
  const parts = String(text ?? "").split(/`([^`]+)`/);
  return h("bdi", { dir: "auto" }, parts.map((part, index) => (index % 2 ? h("code", {}, part) : part)));
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Replace what is in an element, and give the focus back to the successor of what had it. */
export function refill(element, ...children) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  element.replaceChildren(...children.flat().filter(Boolean));
  if (key !== undefined) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

const two = (number) => String(number).padStart(2, "0");

/** A moment in local time, or a dash. */
export function moment(iso) {
  const at = iso ? new Date(iso) : null;
  if (at === null || Number.isNaN(at.getTime())) return "–";
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const text = `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return h("time", { datetime: iso, title: at.toString() }, text);
}

/** How long something took or takes. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A duration in whole seconds: for what ticks. */
export const age = (milliseconds) => duration(Math.max(1000, milliseconds)).replace(/\.\d s$/, " s");

/** A number with its thousands apart. */
export const count = (number) => Number(number).toLocaleString("en");

/** `1 revision`, `2 revisions`. */
export const many = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** Who did it: `ana@web-3 pid 412`. */
export function person(by) {
  if (!by || (!by.user && !by.host)) return "unknown";
  const place = [by.user, by.host].filter(Boolean).join("@");
  return by.pid ? `${place} pid ${by.pid}` : place;
}

/** A name with the colour of its lane. */
export const chip = (schema) => h("span", { class: "chip" }, said(schema || "unnamed"));
