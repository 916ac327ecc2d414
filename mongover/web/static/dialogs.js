// The dialogs: entering a token, looking at a plan and agreeing to it, looking at one revision.

import { Problem } from "./api.js";
import { byId, h, many, refill } from "./dom.js";
import { planView, problemView, revisionView } from "./views.js";

/** Let the buttons of class `cancel` close their dialogs. */
export function wireDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    for (const button of dialog.querySelectorAll(".cancel")) button.addEventListener("click", () => dialog.close(""));
  }
}

// Open a dialog; what had the focus gets it back, also when it was drawn anew meanwhile.
function openModal(dialog) {
  const before = document.activeElement;
  const key = before?.dataset?.key;
  const back = () => {
    if (document.activeElement !== document.body) return;
    (key === undefined ? before : document.querySelector(`[data-key="${CSS.escape(key)}"]`))?.focus();
  };
  dialog.addEventListener("close", back, { once: true });
  dialog.showModal();
}

const asProblem = (error) => (error instanceof Problem ? error : new Problem(0, { title: "The page failed", detail: String(error) }));

/** Asks for a token; resolves to whether one was entered that the server accepts. */
export class TokenDialog {
  #asked = null;

  constructor(api, onAccess) {
    this.api = api;
    this.onAccess = onAccess;
    this.dialog = byId("token-dialog");
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.dialog.addEventListener("close", () => this.#end());
  }

  ask(reason, need = "write") {
    if (this.#asked) return this.#asked.promise;
    this.need = need;
    this.entered = false;
    byId("token-reason").textContent = reason;
    byId("token-error").textContent = "";
    byId("token-value").value = "";
    openModal(this.dialog);
    byId("token-value").focus();
    const asked = {};
    asked.promise = new Promise((resolve) => (asked.resolve = resolve));
    this.#asked = asked;
    return asked.promise;
  }

  #end() {
    byId("token-value").value = "";
    const asked = this.#asked;
    this.#asked = null;
    asked?.resolve(this.entered);
  }

  async #submit() {
    const input = byId("token-value");
    const token = input.value.trim();
    const error = byId("token-error");
    error.textContent = "";
    const found = /^[!-~]+$/.test(token) ? await this.#check(token) : "A token holds only letters, digits and signs, no spaces.";
    if (found !== null) {
      error.textContent = found;
      input.select();
      input.focus();
      return;
    }
    this.entered = true;
    this.dialog.close("");
  }

  // Null when the token is good, else what to say.
  async #check(token) {
    try {
      const access = await this.api.check(token);
      if (this.need === "write" && access.token !== "write" && access.writes !== "off") return "This token may only read. Enter the one for writing.";
      this.api.use(token);
      this.onAccess(access);
      return null;
    } catch (caught) {
      const problem = asProblem(caught);
      if (problem.status === 401) return "The server does not accept this token.";
      return problem.document.detail || problem.document.title;
    }
  }
}

/** Shows the plan of an order and, when it is agreed to, hands the order on. */
export class PlanDialog {
  #turn = 0;

  constructor(api, { authorise, submit, lock, access }) {
    Object.assign(this, { api, authorise, submit, lock, access });
    this.dialog = byId("plan-dialog");
    this.button = byId("plan-go");
    byId("plan-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#go();
    });
    byId("plan-select").addEventListener("change", () => this.#choose(byId("plan-select").value));
    this.dialog.addEventListener("close", () => (this.#turn += 1));
  }

  /** An upgrade: of everything, or of one schema. */
  upgrade(schema = null) {
    this.order = { direction: "up", schema, target: schema === null ? "head" : `${schema}@head` };
    this.#open(schema === null ? "Upgrade everything" : `Upgrade ${schema}`, null);
  }

  /** A downgrade to one of some places: pairs of a target and its description. */
  downgrade(title, places) {
    this.order = { direction: "down", schema: null, target: places[0][0] };
    this.#open(title, places);
  }

  #open(title, places) {
    byId("plan-title").textContent = title;
    byId("plan-target").hidden = places === null;
    byId("plan-select").replaceChildren(...(places ?? []).map(([target, text]) => h("option", { value: target, dir: "auto" }, text)));
    openModal(this.dialog);
    (places === null ? this.dialog.querySelector(".cancel") : byId("plan-select")).focus();
    this.#load();
  }

  #choose(target) {
    this.order = { ...this.order, target };
    this.#load();
  }

  async #load() {
    const turn = (this.#turn += 1);
    this.plan = null;
    this.#label();
    refill(byId("plan-problem"));
    refill(byId("plan-body"), h("p", { class: "soft" }, "Planning…"));
    const query = new URLSearchParams({ direction: this.order.direction, target: this.order.target });
    try {
      const plan = await this.authorise(() => this.api.get(`plan?${query}`), "read");
      if (turn !== this.#turn) return;
      this.plan = plan;
      refill(byId("plan-body"), ...(plan ? planView(plan).flat() : [h("p", {}, "Reading the plan needs a token.")]), this.#note());
    } catch (error) {
      if (turn !== this.#turn) return;
      refill(byId("plan-body"));
      this.#fail(asProblem(error));
    }
    this.#label();
  }

  #note() {
    const access = this.access();
    if (access?.writes === "off") return h("p", { class: "note" }, "This server is read-only: it was started without a token for writing (MONGOVER_API_TOKEN).");
    return this.api.hasToken || !this.plan?.steps.length ? null : h("p", { class: "note" }, "Running it needs a token; you will be asked for it.");
  }

  #label() {
    const steps = this.plan?.steps.length ?? 0;
    const down = this.order.direction === "down";
    this.button.disabled = steps === 0 || this.access()?.writes === "off";
    this.button.textContent = steps === 0 ? (down ? "Revert" : "Apply") : `${down ? "Revert" : "Apply"} ${many(steps, "revision")}`;
    this.button.classList.toggle("danger", down);
  }

  async #go() {
    if (this.button.disabled) return;
    this.button.disabled = true;
    refill(byId("plan-problem"));
    try {
      const answer = await this.authorise(() => this.submit(this.order), "write");
      if (answer === null) {
        refill(byId("plan-problem"), h("p", { class: "note" }, "Nothing was run: no token was entered."));
      } else {
        this.dialog.close("");
        this.onStarted(answer);
      }
    } catch (error) {
      await this.#fail(asProblem(error));
    }
    this.#label();
  }

  async #fail(problem) {
    const lock = problem.status === 409 ? await this.lock() : null;
    refill(byId("plan-problem"), problemView(problem.document, { lock, now: this.api.now() }));
  }
}

/** Shows one revision. */
export async function openRevision(api, authorise, id) {
  const dialog = byId("revision-dialog");
  const body = byId("revision-body");
  byId("revision-title").textContent = id;
  refill(body, h("p", { class: "soft" }, "Reading…"));
  openModal(dialog);
  try {
    const found = await authorise(() => api.get(`revisions/${encodeURIComponent(id)}`), "read");
    if (byId("revision-title").textContent !== id) return;
    const message = (found?.record ?? found?.revision)?.message;
    refill(byId("revision-title"), h("code", {}, h("bdi", {}, id)), " ", h("bdi", { dir: "auto" }, message ?? ""));
    refill(body, ...(found ? revisionView(found) : []));
  } catch (error) {
    refill(body, problemView(asProblem(error).document));
  }
}
