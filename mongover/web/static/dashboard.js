// The page: reads what there is, follows what happens, and asks for runs.

import { Api, Problem } from "./api.js";
import { byId, h, refill, said } from "./dom.js";
import { PlanDialog, TokenDialog, openRevision, wireDialogs } from "./dialogs.js";
import { drawGraph, drawLegend } from "./graph.js";
import { RunPanel, adopt, isOver, title } from "./run.js";
import { Feed } from "./stream.js";
import { figures, lockView, problemList, problemView, schemaTable, timeline } from "./views.js";

const CALM = 10_000; // milliseconds between two looks when nothing goes on
const BUSY = 2_000; // … while something runs
const READS = { status: "status", catalogue: "revisions", history: "history", lock: "lock" };

class Page {
  constructor() {
    this.api = new Api(new URL(".", document.baseURI));
    this.access = null;
    this.data = {};
    this.texts = {};
    this.shown = timeline.page;
    this.connection = "connecting";
    this.locked = false;
    this.tokens = new TokenDialog(this.api, (access) => this.#entered(access));
    this.panel = new RunPanel({ onRetry: (run) => this.#retry(run), now: () => this.api.now() });
    const authorise = (call, need) => this.#authorised(call, need);
    this.plans = new PlanDialog(this.api, {
      authorise,
      submit: (order) => this.#submit(order),
      lock: () => this.#lock(),
      access: () => this.access,
    });
    this.plans.onStarted = (answer) => this.#started(answer);
    this.open = (id) => openRevision(this.api, authorise, id);
    this.feed = new Feed(this.api, {
      onEvent: (name, event) => this.#hear(name, event),
      onState: (state, problem) => this.#connected(state, problem),
    });
  }

  start() {
    wireDialogs();
    byId("token").addEventListener("click", () => this.#tokenButton());
    byId("upgrade").addEventListener("click", () => this.plans.upgrade());
    byId("downgrade").addEventListener("click", () => this.#downgradeAny());
    document.addEventListener("visibilitychange", () => this.#seen(!document.hidden));
    window.addEventListener("online", () => this.feed.restart());
    setInterval(() => this.#tick(), 1_000);
    this.#loop();
    this.feed.start();
  }

  // A browser opens few connections to one server: a page that nobody looks at holds none.
  #seen(visible) {
    if (!visible) return this.feed.sleep();
    this.feed.wake();
    return this.#soon(0);
  }

  // ---- reading ----------------------------------------------------------------------------------

  async #loop() {
    for (;;) {
      if (!document.hidden) await this.refresh();
      await new Promise((resolve) => {
        this.wake = resolve;
        this.timer = setTimeout(resolve, this.#interval());
      });
    }
  }

  #interval() {
    const held = this.data.lock?.lock?.held === true;
    return this.panel.busy || held || this.away ? BUSY : CALM;
  }

  // Look again soon; many wishes within a short while are one.
  #soon(delay = 150) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.wake?.(), delay);
  }

  async refresh() {
    try {
      if (this.access === null) this.#setAccess(await this.api.get("access"));
      const names = Object.keys(READS);
      const found = await Promise.allSettled(names.map((name) => this.api.get(READS[name])));
      const wrong = found.find((one) => one.status === "rejected");
      names.forEach((name, index) => found[index].status === "fulfilled" && this.#take(name, found[index].value));
      if (wrong) throw wrong.reason;
      this.#setLocked(false);
      this.#banner(null);
      await this.#reconcile();
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error) {
    if (!(error instanceof Problem)) {
      reportError(error); // a fault of this page: said in the console, and the page goes on
      return;
    }
    if (error.wantsToken) {
      this.#setLocked(true);
      this.#banner(null);
      return;
    }
    this.#banner(error);
  }

  #take(name, value) {
    const text = JSON.stringify(value);
    if (this.texts[name] === text) return;
    this.texts[name] = text;
    this.data[name] = value;
    if (name === "lock") this.#drawLock();
    if (name === "status") this.#drawStatus();
    if (name === "catalogue") this.#drawCatalogue();
    if (name !== "lock" && name !== "status") this.#drawHistory();
  }

  // What the stream may have missed of the run that is shown.
  async #reconcile() {
    const { run } = this.panel;
    if (run === null || isOver(run) || this.connection === "live") return;
    try {
      const found = await this.api.get(`runs/${encodeURIComponent(run.id)}`);
      if (this.panel.run?.id === run.id) this.panel.show(adopt(found, this.panel.run));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 404) this.panel.show({ ...run, state: "lost" });
    }
  }

  // ---- drawing ----------------------------------------------------------------------------------

  #drawStatus() {
    refill(byId("schemas"), schemaTable(this.data.status, { upgrade: (name) => this.plans.upgrade(name), downgrade: (name) => this.#downgradeOne(name) }));
  }

  #drawCatalogue() {
    const { database, revisions, problems } = this.data.catalogue;
    byId("database").textContent = database;
    document.title = `${revisions.some((one) => !one.applied) ? "● " : ""}Migrations of ${database}`;
    refill(byId("summary"), ...figures(this.data.catalogue));
    byId("problems").hidden = problems.length === 0;
    refill(byId("problems-list"), ...problemList(problems));
    refill(byId("legend"), ...(revisions.length ? drawLegend(revisions) : []));
    refill(byId("graph"), revisions.length ? drawGraph(revisions, this.open) : h("p", { class: "empty" }, "No revisions."));
    byId("upgrade").disabled = revisions.every((one) => one.applied);
    byId("downgrade").disabled = !revisions.some((one) => one.applied);
  }

  #drawHistory() {
    if (!this.data.history) return;
    const files = new Map((this.data.catalogue?.revisions ?? []).map((one) => [one.revision, one.file]));
    const more = () => {
      this.shown += timeline.page;
      this.#drawHistory();
    };
    refill(byId("history"), ...[timeline(this.data.history, files, { shown: this.shown, open: this.open, more })].flat());
  }

  #drawLock() {
    refill(byId("lock"), ...[lockView(this.data.lock.lock, this.api.now())].flat());
  }

  #tick() {
    if (!document.hidden && this.data.lock?.lock?.held) this.#drawLock();
  }

  #banner(problem) {
    const banner = byId("banner");
    this.away = problem?.passing === true;
    const key = problem === null ? "" : `${problem.status} ${problem.kind} ${problem.document.detail}`;
    if (problem !== null && !this.away) this.bannerText = null;
    banner.hidden = problem === null;
    // The errorId differs each time; the same problem is not read out again and again.
    const same = key.replace(/[0-9a-f]{12}/g, "");
    if (same === this.bannerText) return;
    this.bannerText = same;
    refill(banner, problem === null ? null : problemView(problem.document), this.away ? h("p", { class: "soft" }, "What is shown below may be old. Trying again…") : null);
    this.#drawConnection();
  }

  #drawConnection() {
    const state = this.away ? "away" : this.locked ? "locked" : this.connection;
    const words = { live: "live", retrying: "polling", locked: "locked", connecting: "connecting", away: "no answer" };
    byId("connection").dataset.state = state;
    if (byId("connection").textContent !== words[state]) byId("connection").textContent = words[state];
  }

  // ---- who may -----------------------------------------------------------------------------------

  #setAccess(access) {
    this.access = access;
    const note = byId("access");
    const off = access.writes === "off";
    note.hidden = this.api.hasToken && !off && access.token === "write";
    note.textContent = off ? "Read-only: this server was started without a token for writing (MONGOVER_API_TOKEN)."
      : access.token === "read" ? "Read-only: this token may only read."
        : access.reads === "token" && access.token === "none" ? "Reading needs a token on this server. Enter one to see anything."
          : "Read-only: enter a token to upgrade or downgrade.";
    byId("token").textContent = this.api.hasToken ? "Forget the token" : "Enter token…";
    byId("token").hidden = off && access.reads === "open";
  }

  #entered(access) {
    this.#setAccess(access);
    this.#setLocked(false);
    this.feed.restart();
    this.#soon(0);
  }

  #setLocked(locked) {
    if (locked && this.api.hasToken) {
      this.#forget();
      this.#ask("The server no longer accepts the token. Enter one that it does; nothing on this page is lost.", "read");
    }
    this.locked = locked;
    this.#drawConnection();
  }

  #forget() {
    this.api.forget();
    if (this.access) this.#setAccess({ ...this.access, token: "none" });
  }

  #tokenButton() {
    if (!this.api.hasToken) return this.#ask("With the token of this server the page can upgrade and downgrade.", "any");
    this.#forget();
    if (this.access?.reads === "token") location.reload(); // what it allowed to see goes with it
    return null;
  }

  #ask(reason, need) {
    return this.tokens.ask(reason, need);
  }

  // What the call answers; null when it needs a token and none was given.
  async #authorised(call, need) {
    let reason = "This needs the token of the server.";
    for (;;) {
      const missing = need === "write" && (!this.api.hasToken || this.access?.token === "read");
      if (missing && !(await this.#ask(reason, need))) return null;
      try {
        return await call();
      } catch (error) {
        if (!(error instanceof Problem) || !error.wantsToken) throw error;
        const had = this.api.hasToken;
        this.#forget();
        reason = had ? "The server no longer accepts the token. Enter one that it does; then this goes on." : "Reading needs a token on this server.";
        if (need !== "write" && !(await this.#ask(reason, need))) return null;
      }
    }
  }

  // ---- acting ------------------------------------------------------------------------------------

  async #lock() {
    try {
      return (await this.api.get("lock")).lock;
    } catch (error) {
      if (error instanceof Problem) return null;
      throw error;
    }
  }

  #submit({ direction, schema, target }) {
    if (direction === "down") return this.api.post("downgrade?wait=false", { target });
    return this.api.post(schema === null ? "run?wait=false" : `run/${encodeURIComponent(schema)}?wait=false`);
  }

  #started({ document: found }) {
    if (this.panel.run?.id !== found.id) this.panel.show(adopt(found)); // else its events came first
    byId("announce").textContent = title(this.panel.run);
    byId("run").hidden = false;
    byId("run-title").focus();
    byId("run").scrollIntoView({ block: "nearest" });
    this.#soon(0);
  }

  #retry(run) {
    if (run.direction === "down") return this.plans.downgrade("Downgrade", [[run.target, run.target]]);
    const schema = /^(.+)@head$/.exec(run.target ?? "")?.[1] ?? null;
    return this.plans.upgrade(schema);
  }

  #downgradeAny() {
    this.plans.downgrade("Downgrade", [["-1", "before the revision applied last, of any schema"], ["base", "the beginning: everything is reverted"]]);
  }

  #downgradeOne(name) {
    const line = (this.data.catalogue?.revisions ?? []).filter((one) => (one.schema ?? "") === name && one.applied);
    const stays = line.slice(0, -1).reverse().map((one) => [name ? `${name}@${one.revision}` : one.revision, `${one.revision} ${one.message} (it stays)`]);
    const places = [[`${name}@-1`, "before the revision of it applied last"], ...stays, [`${name}@base`, "the beginning: all of it is reverted"]];
    this.plans.downgrade(`Downgrade ${name || "the unnamed line"}`, places);
  }

  // ---- what happens ------------------------------------------------------------------------------

  #hear(name, event) {
    if (name === "State") {
      if (event.active) this.panel.show(adopt(event.active, this.panel.run));
      else if (this.panel.busy) this.#missed();
      return;
    }
    if (!event.run) return;
    this.panel.hear(name, event);
    if (name === "RunEnded") this.#ended(event);
    if (["StepStarted", "StepFinished", "StepFailed", "RunEnded", "LockTaken"].includes(name)) this.#soon();
  }

  async #missed() {
    const state = this.connection;
    this.connection = "retrying";
    await this.#reconcile();
    this.connection = state;
  }

  async #ended({ run, problem }) {
    if (problem?.status !== 409) return;
    const lock = await this.#lock();
    if (this.panel.run?.id !== run) return;
    this.panel.lock = lock;
    this.panel.show({ ...this.panel.run });
  }

  #connected(state, problem) {
    this.connection = state;
    this.#drawConnection();
    if (state === "locked" || problem?.passing) this.#soon(0);
  }
}

new Page().start();
