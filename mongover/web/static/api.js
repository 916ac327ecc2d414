// Requests to the API. The token lives in this closure of the page and nowhere else.

const PATIENCE = 30_000;

/** An answer that is not the one hoped for, as a problem document. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title);
    this.status = status;
    this.document = document;
    this.kind = String(document.type ?? "").replace("urn:mongover:problem:", "");
  }

  /** Whether another token may help. */
  get wantsToken() {
    return this.status === 401 || this.kind === "token-for-reading";
  }

  /** Whether the same request may well succeed later. */
  get passing() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

const away = () => new Problem(0, {
  type: "urn:mongover:problem:server-away",
  title: "The server does not answer",
  detail: "no answer came from the server of this page",
  hint: "the page tries again by itself",
});

async function problemOf(response) {
  const kind = response.headers.get("content-type") ?? "";
  const plain = { title: response.statusText || `HTTP ${response.status}`, detail: `the server answered ${response.status}` };
  if (!kind.includes("json")) return new Problem(response.status, plain);
  const body = await response.json().catch(() => null);
  const whole = body !== null && typeof body === "object" && !Array.isArray(body);
  return new Problem(response.status, whole ? { ...plain, ...body } : plain);
}

// An answer that breaks off is no answer.
const bodyOf = (response) => response.json().catch(() => Promise.reject(away()));

export class Api {
  #token = null;

  constructor(base) {
    this.base = base;
    this.clock = 0; // the server's time minus ours, in milliseconds
  }

  get hasToken() {
    return this.#token !== null;
  }

  use(token) {
    this.#token = token;
  }

  forget() {
    this.#token = null;
  }

  /** Now, by the server's clock. */
  now() {
    return Date.now() + this.clock;
  }

  /** What `GET path` answers. */
  get(path, options = {}) {
    return this.#ask(path, options).then(bodyOf);
  }

  /** What `POST path` answers, and where it says to look on. */
  async post(path, body) {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const options = { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) };
    const response = await this.#ask(path, options);
    return { document: await bodyOf(response), location: response.headers.get("location") };
  }

  /** What a token allows, asked without using it for anything else. */
  check(token) {
    return this.#ask("access", { token }).then(bodyOf);
  }

  /** The open stream of an address. */
  stream(path, signal, headers) {
    return this.#ask(path, { signal, headers, patience: false });
  }

  async #ask(path, { method = "GET", headers = {}, body, token = this.#token, signal, patience = true }) {
    const sent = { accept: "application/json, application/problem+json, text/event-stream", ...headers };
    if (token !== null) sent.authorization = `Bearer ${token}`;
    let response;
    try {
      response = await fetch(new URL(path, this.base), {
        method,
        headers: sent,
        body,
        cache: "no-store",
        referrerPolicy: "no-referrer",
        signal: patience ? AbortSignal.timeout(PATIENCE) : signal,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw away();
    }
    const date = Date.parse(response.headers.get("date") ?? "");
    if (!Number.isNaN(date)) this.clock = date + 500 - Date.now();
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}
