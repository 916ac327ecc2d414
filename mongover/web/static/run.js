// The run at work: what its events tell, and the panel that shows it.

import { byId, count, duration, h, many, refill, said } from "./dom.js";
import { problemView } from "./views.js";

const LINES = 200;

const SENTENCES = {
  LockWaiting: (e) => `waiting for the lock, held by ${e.holder} for ${duration(e.held_seconds * 1000)}`,
  LockTaken: (e) => (e.previous ? `lock taken over from ${e.previous}` : null),
  StepStarted: (e) => `${e.revision} ${e.message || ""}${e.continues ? " (continued)" : ""}`,
  OperationFinished: (e) => `${e.outcome === "warning" ? "⚠" : "✓"} ${e.operation} · ${e.outcome === "unchanged" ? "nothing to do" : duration(e.seconds * 1000)}`,
  Notice: (e) => e.message,
  StepFinished: (e) => `✓ ${e.revision} ${e.direction === "up" ? "applied" : "reverted"} in ${duration(e.seconds * 1000)}`,
  StepFailed: (e) => `✕ ${e.revision} ${e.state}: ${e.message}`,
};
const SPOKEN = new Set(["LockWaiting", "StepStarted", "StepFinished", "StepFailed"]);

// How far an operation is that has only begun.
const FRESH = { done: null, documents: null, rate: null, left: null, ranges: null, rangesDone: null, reached: null };

const blank = (id) => ({
  id, state: "waiting", direction: null, target: null, total: null, position: null, revision: null,
  operation: null, ...FRESH, lines: [], finished: 0, seconds: null, problem: null,
});

// `upgrade head` and `downgrade -1`, as the server words an order.
function wish(order) {
  const [verb, ...target] = String(order).split(" ");
  return { direction: verb === "downgrade" ? "down" : "up", target: target.join(" ") };
}

/** A run after one more event: a new value each time. */
export function advance(run, name, e) {
  const next = { ...run };
  const line = SENTENCES[name]?.(e);
  if (line) next.lines = [...run.lines, { text: line, kind: name }].slice(-LINES);
  if (name === "LockWaiting" && run.lines.at(-1)?.kind === "LockWaiting") next.lines.splice(-2, 1);
  if (name === "RunAccepted") Object.assign(next, wish(e.order));
  if (name === "RunStarted") Object.assign(next, { state: "running", direction: e.direction, target: e.target, total: e.total });
  if (name === "StepStarted") Object.assign(next, { state: "running", revision: e.revision, position: e.position, total: e.total, direction: e.direction, operation: null, ...FRESH });
  if (name === "OperationStarted") Object.assign(next, { operation: e.operation, ...FRESH });
  if (name === "Progress") Object.assign(next, { done: e.done, documents: e.total, rate: e.rate, left: e.left, ranges: e.ranges, rangesDone: e.ranges_done, reached: e.reached });
  if (name === "StepFinished") next.finished = e.position;
  if (name === "RunFinished") next.seconds = e.seconds;
  if (name === "RunEnded") Object.assign(next, { state: e.state, problem: e.problem, operation: null });
  return next;
}

/** The run that an answer of the API describes, with the lines that were heard already. */
export function adopt(document, known = null) {
  const base = known?.id === document.id ? known : blank(document.id);
  const progress = document.progress ?? {};
  return {
    ...base,
    state: document.state,
    direction: document.direction ?? base.direction,
    target: document.target ?? base.target,
    total: progress.total ?? base.total,
    position: progress.position ?? base.position,
    revision: progress.revision ?? base.revision,
    operation: progress.operation ?? null,
    done: progress.done ?? null,
    documents: progress.documents ?? null,
    ranges: progress.ranges ?? null,
    rangesDone: progress.rangesDone ?? null,
    reached: progress.reached ?? null,
    finished: document.revisions?.length ?? base.finished,
    seconds: document.result ? document.result.durationMs / 1000 : base.seconds,
    problem: document.problem ?? null,
  };
}

export const isOver = (run) => !["waiting", "running"].includes(run.state);

const verb = (run) => (run.direction === "down" ? "Downgrade" : "Upgrade");

/** The heading of a run. */
export function title(run) {
  const what = `${verb(run)}${run.target ? ` to ${run.target}` : ""}`;
  const states = { waiting: "begins", running: "runs", succeeded: "done", failed: "failed", stopped: "was stopped", ended: "ended", lost: "is no longer known to the server" };
  return `${what} ${states[run.state] ?? run.state}`;
}

/** How a run ended, in a sentence. */
export function ending(run) {
  const done = run.direction === "down" ? "reverted" : "applied";
  if (run.state === "succeeded" && run.finished === 0) return "There was nothing to do.";
  if (run.state === "succeeded") return `${many(run.finished, "revision")} ${done}${run.seconds === null ? "" : ` in ${duration(run.seconds * 1000)}`}.`;
  if (run.state === "failed" || run.state === "stopped") return `${many(run.finished, "revision")} ${done} before it.`;
  return "The history shows what was done.";
}

function bars(run) {
  const steps = run.total === null ? h("progress", { "aria-label": "Revisions" })
    : h("progress", { max: run.total, value: run.finished, "aria-label": `Revisions: ${run.finished} of ${run.total}` });
  const at = run.revision ? h("p", {}, h("code", {}, said(run.revision)), run.total ? ` · ${run.position} of ${run.total}` : null) : h("p", {}, "waiting to begin");
  return [steps, at, run.operation ? operation(run) : null];
}

function operation(run) {
  const parts = [];
  if (run.done !== null) parts.push(run.documents ? `${count(run.done)} of ${count(run.documents)} documents` : `${count(run.done)} documents`);
  if (run.rate) parts.push(`${count(Math.round(run.rate))}/s`);
  if (run.left !== null) parts.push(`${duration(run.left * 1000)} left`);
  if (run.ranges) parts.push(`${run.rangesDone} of ${many(run.ranges, "range")} done`);
  if (run.reached) parts.push(`at _id ${run.reached}`);
  return h("div", { class: "operation" }, said(run.operation),
    run.done !== null && run.documents ? h("progress", { max: run.documents, value: run.done, "aria-label": "Documents of this operation" }) : null,
    parts.length ? h("div", { class: "soft" }, parts.join(" · ")) : null);
}

/** The panel; it draws at most once a frame, however fast events come. */
export class RunPanel {
  run = null;
  #drawn = false;

  constructor({ onRetry, now }) {
    this.onRetry = onRetry;
    this.now = now;
    this.lock = null;
  }

  get busy() {
    return this.run !== null && !isOver(this.run);
  }

  show(run) {
    if (run.id !== this.run?.id) this.lock = null;
    this.run = run;
    this.#schedule();
  }

  /** Take note of an event of any run of the server. */
  hear(name, event) {
    if (event.run !== this.run?.id) {
      if (this.busy && name !== "RunStarted") return;
      this.show(blank(event.run));
    }
    this.show(advance(this.run, name, event));
    const line = this.run.lines.at(-1);
    if (line && SPOKEN.has(name) && line.kind === name) byId("announce").textContent = line.text;
    if (name === "RunEnded") byId("announce").textContent = `${title(this.run)}. ${ending(this.run)}`;
  }

  dismiss() {
    this.run = null;
    this.#schedule();
  }

  #schedule() {
    if (this.#drawn) return;
    this.#drawn = true;
    requestAnimationFrame(() => {
      this.#drawn = false;
      this.#draw();
    });
  }

  #draw() {
    const { run } = this;
    const panel = byId("run");
    panel.hidden = run === null;
    if (run === null) return;
    panel.dataset.state = run.state;
    byId("run-title").textContent = title(run);
    const list = h("ol", { class: "lines", tabindex: "0", "data-key": "lines", "aria-label": "What happened" }, run.lines.map((line) => h("li", { class: line.kind }, said(line.text))));
    const over = isOver(run);
    refill(byId("run-body"),
      over ? h("p", {}, ending(run)) : bars(run),
      run.problem ? problemView(run.problem, { lock: this.lock, now: this.now() }) : null,
      run.lines.length ? list : null,
      over ? h("div", { class: "buttons" },
        run.state === "failed" || run.state === "stopped" ? h("button", { type: "button", "data-key": "retry", onclick: () => this.onRetry(run) }, "Try again…") : null,
        h("button", { type: "button", class: "quiet", "data-key": "dismiss", onclick: () => this.dismiss() }, "Close")) : null);
    list.scrollTop = list.scrollHeight;
  }
}
