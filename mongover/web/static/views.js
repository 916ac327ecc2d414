// What the page shows of the database: every function returns elements and changes nothing.

import { age, chip, count, duration, h, many, moment, person, prose, said } from "./dom.js";

const PAGE = 50;

/** Whether somebody must do something about it; a file that was reformatted may stay so. */
const waits = (problem) => problem.kind !== "reformatted";

/** `4 applied`, `2 pending`, `0 problems`. */
export function figures(catalogue) {
  const { revisions, problems } = catalogue;
  const applied = revisions.filter((one) => one.applied).length;
  const wrong = problems.filter(waits).length;
  const pairs = [[applied, "applied", ""], [revisions.length - applied, "pending", "is-pending"], [wrong, wrong === 1 ? "problem" : "problems", "is-bad"]];
  return pairs.map(([number, word, kind]) => h("span", { class: `figure ${number ? kind : ""}` }, h("strong", {}, count(number)), ` ${word}`));
}

/** What is wrong, a line each. */
export function problemList(problems) {
  return problems.map((problem) => h("li", {},
    h("span", { class: waits(problem) ? "tag is-bad" : "tag" }, problem.kind), " ",
    prose(problem.message),
    problem.hint ? h("div", { class: "hint" }, "next: ", prose(problem.hint)) : null));
}

const slug = (state) => `is-${state.replaceAll(" ", "-")}`;

function collections(entry) {
  if (entry.collections.length === 0) return ["–"];
  return entry.collections.map((one) => h("div", { class: "collection" },
    said(one.name),
    h("span", { class: "soft" }, one.exists ? ` ${many(one.documents, "document")}, ${one.indexes} index${one.indexes === 1 ? "" : "es"}` : " does not exist yet")));
}

function versions(entry) {
  const from = entry.current ?? "–";
  const short = `${from}${entry.head}`.length < 24;
  if (entry.current === entry.head) return [h("code", {}, said(from))];
  return [h("span", { class: short ? "versions" : null }, h("code", {}, said(from)), h("span", { "aria-hidden": "true" }, " → "), h("span", { class: "visually-hidden" }, " to "), h("code", {}, said(entry.head ?? "–")))];
}

function schemaRow(name, entry, acts) {
  const shown = name || "unnamed";
  const act = (word, label, go) => h("button", { type: "button", class: "small", "data-key": `${word} ${name}`, "aria-label": `${label} ${shown}`, onclick: go }, `${label}…`);
  const upgrade = entry.pending.length && name ? act("upgrade", "Upgrade", () => acts.upgrade(name)) : null;
  const downgrade = entry.current ? act("downgrade", "Downgrade", () => acts.downgrade(name)) : null;
  const cell = (label, ...content) => h("td", { "data-label": label }, h("div", {}, ...content));
  return h("tr", { "data-schema": name },
    h("th", { scope: "row" }, said(shown)),
    cell("State", h("span", { class: `tag ${slug(entry.state)}` }, entry.state)),
    cell("Revision", versions(entry)),
    cell("Pending", entry.pending.length ? h("span", { title: entry.pending.slice(0, 20).join(", ") }, String(entry.pending.length)) : "–"),
    cell("Collections", collections(entry)),
    h("td", { class: "acts" }, h("div", {}, upgrade, downgrade)));
}

/** A table of the schemas, or a sentence when there is none. */
export function schemaTable(status, acts) {
  const entries = Object.entries(status);
  if (entries.length === 0) {
    return h("p", { class: "empty" }, "There are no revisions yet. Write the first one with ", h("code", {}, "mongover revision -m \"…\""), ".");
  }
  const heads = ["Schema", "State", "Revision", "Pending", "Collections"].map((word) => h("th", { scope: "col" }, word));
  return h("table", { class: "schemas" },
    h("thead", {}, h("tr", {}, heads, h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Actions")))),
    h("tbody", {}, entries.map(([name, entry]) => schemaRow(name, entry, acts))));
}

/** A list of names and what they are. */
export const facts = (pairs) => h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined)
  .flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

const since = (iso, now) => (iso ? `${age(now - Date.parse(iso))} ago` : "–");

/** Who holds the lease, in the words of a sentence. */
export function holderSentence(lock, now) {
  const { holder } = lock;
  const what = holder.command ? ` (${holder.command})` : "";
  return `Held by ${person(holder)}${what} since ${since(lock.acquiredAt, now)}; its last heartbeat was ${since(lock.heartbeatAt, now)}.`;
}

/** The lease as it stands. */
export function lockView(lock, now) {
  if (lock === null) return h("p", { class: "soft" }, "Free. Nothing ever ran here.");
  const state = lock.owner === null ? "free" : lock.held ? "held" : "expired";
  if (state === "free") {
    const last = lock.holder.user || lock.holder.host ? person(lock.holder) : null;
    return [h("p", {}, h("span", { class: "tag is-applied" }, "free")),
      facts([["held last by", last && said(last)], ["until", last && moment(lock.expiresAt)], ["fence", String(lock.fence)]])];
  }
  return [
    h("p", {}, h("span", { class: `tag ${state === "held" ? "is-running" : "is-bad"}` }, state)),
    facts([
      ["holder", said(person(lock.holder))],
      ["command", lock.holder.command ? said(lock.holder.command) : null],
      ["since", h("span", {}, moment(lock.acquiredAt), h("span", { class: "soft" }, ` (${since(lock.acquiredAt, now)})`))],
      ["heartbeat", since(lock.heartbeatAt, now)],
      ["fence", String(lock.fence)],
    ]),
    state === "expired" ? h("p", { class: "hint" }, "Its holder gave no sign of life in time; the next run takes it over.") : null,
  ];
}

/** The error of a record. */
export function errorText(error) {
  const type = error.type ?? error.kind ?? error.code ?? "error";
  const message = error.message ?? error.text ?? "";
  return h("p", { class: "failure" }, h("strong", {}, said(type)), message ? ": " : null, message ? said(message) : null);
}

const FILES = { same: ["✓", "file unchanged"], reformatted: ["≈", "file reformatted"], edited: ["✕", "file edited since"], missing: ["✕", "file missing"], unreadable: ["✕", "file unreadable"] };

function fileState(file) {
  if (!(file in FILES)) return null;
  const [sign, words] = FILES[file];
  const bad = file !== "same" && file !== "reformatted";
  return h("span", { class: bad ? "file is-bad" : "file" }, h("span", { "aria-hidden": "true" }, `${sign} `), words);
}

const when = (record) => (record.state === "reverted" ? record.reverted_at : record.applied_at) ?? record.applied_at ?? record.started_at;

function event(record, file, open) {
  return h("li", { class: `event is-${record.state}` },
    h("div", { class: "event-head" },
      h("span", { class: `tag is-${record.state}` }, record.state),
      moment(when(record)),
      h("span", { class: "soft" }, duration(record.duration_ms))),
    h("button", { type: "button", class: "link", "data-key": `history ${record.revision}`, onclick: () => open(record.revision) },
      h("code", {}, said(record.revision)), " ", said(record.message || "no message")),
    h("div", { class: "event-foot soft" }, chip(record.schema), h("span", {}, "by ", said(person(record.by))),
      record.attempt > 1 ? h("span", {}, `attempt ${record.attempt}`) : null, fileState(file)),
    record.error ? errorText(record.error) : null,
    record.warnings.map((text) => h("p", { class: "warning" }, said(text))));
}

const newestFirst = (a, b) => (Date.parse(when(b)) || 0) - (Date.parse(when(a)) || 0) || b.sequence - a.sequence;

/** The records, newest first: as many as `shown` asks for. */
export function timeline(history, files, { shown, open, more }) {
  const records = [...history.revisions].sort(newestFirst);
  if (records.length === 0) return h("p", { class: "empty" }, "Nothing was applied yet.");
  const first = records.slice(0, shown);
  const left = records.length - first.length;
  return [
    h("ol", { class: "timeline" }, first.map((record) => event(record, files.get(record.revision), open))),
    left > 0 ? h("button", { type: "button", class: "small", "data-key": "older", onclick: more }, `Show ${Math.min(left, PAGE)} older (${count(left)} left)`) : null,
  ];
}
timeline.page = PAGE;

/** The steps of a plan, and what to know before it runs. */
export function planView(plan) {
  const steps = plan.steps.map((step) => h("li", {},
    h("code", {}, said(step.revision)), " ", said(step.message || "no message"), " ", chip(step.schema),
    step.transaction ? h("span", { class: "tag" }, "transaction") : null));
  return [
    plan.nothing ? h("p", {}, said(plan.nothing)) : null,
    plan.steps.length ? h("p", {}, `${many(plan.steps.length, "revision")} will be ${plan.direction === "up" ? "applied" : "reverted"}, in this order:`) : null,
    plan.steps.length ? h("ol", { class: "steps", tabindex: "0", "aria-label": "Steps of the plan" }, steps) : null,
    plan.reaches.length && !plan.notices.length ? h("p", { class: "warning" }, "It also goes into ", plan.reaches.flatMap((name, index) => [index ? ", " : null, chip(name)]), ", which depends on what is reverted.") : null,
    plan.running.length ? h("p", { class: "warning" }, `Another process runs ${plan.running.join(", ")} now.`) : null,
    plan.destroys.map((one) => h("p", one.refused ? { class: "warning" } : {}, said(one.message))),
    plan.unforeseen.map((text) => h("p", { class: "warning" }, "What this destroys cannot be foreseen: ", said(text))),
    plan.notices.map((text) => h("p", { class: "warning" }, said(text))),
  ];
}

/** A problem document. */
export function problemView(document, { lock = null, now = 0 } = {}) {
  const held = lock?.held ? holderSentence(lock, now) : null;
  const more = [document.revision ? `revision ${document.revision}` : null, document.code ?? null, document.errorId ? `errorId ${document.errorId}` : null].filter(Boolean);
  return h("div", { class: "problem" },
    h("p", { class: "problem-title" }, h("strong", {}, said(document.title ?? "A problem"))),
    document.detail ? h("p", {}, prose(document.detail)) : null,
    held ? h("p", { class: "holder" }, said(held)) : null,
    document.hint ? h("p", { class: "hint" }, "next: ", prose(document.hint)) : null,
    more.length ? h("p", { class: "soft" }, said(more.join(" · "))) : null);
}

function logLine(line) {
  return h("li", {}, moment(line.at), " ", h("strong", {}, ["apply", "revert"].includes(line.action) ? line.outcome : `${line.action} ${line.outcome}`), " ",
    h("span", { class: "soft" }, duration(line.duration_ms), " by ", said(person(line.by))),
    line.reason ? h("div", {}, said(line.reason)) : null,
    line.error ? errorText(line.error) : null);
}

/** All that is known of one revision. */
export function revisionView({ revision, record, problems }) {
  const it = record ?? revision;
  return [
    problems.length ? h("ul", { class: "plain" }, problemList(problems)) : null,
    it ? facts([
      ["schema", chip(it.schema)],
      ["state", h("span", { class: `tag is-${record?.state ?? "pending"}` }, record?.state ?? "pending")],
      ["revises", it.down_revision.join(", ") || "–"],
      ["depends on", it.depends_on.join(", ") || "–"],
      ["file", said(revision?.path ?? record?.file ?? "–")],
      ["in a transaction", it.transaction ? "yes" : "no"],
      ["downgrade", revision ? (revision.reversible ? "yes" : "none: it cannot be reverted") : null],
      ["took", record ? duration(record.duration_ms) : null],
      ["collections", record?.collections.length ? said(record.collections.join(", ")) : null],
      ["checksum", h("code", { class: "sum" }, record?.checksum || revision?.checksum || "–")],
    ]) : null,
    record?.error ? errorText(record.error) : null,
    record?.log.length ? h("h3", {}, "Log") : null,
    record?.log.length ? h("ol", { class: "log", tabindex: "0", "aria-label": "Log" }, [...record.log].reverse().slice(0, 100).map(logLine)) : null,
  ];
}
