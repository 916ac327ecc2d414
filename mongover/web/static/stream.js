// Server-sent events over fetch, because EventSource cannot send the header with the token.

const QUIET = 45_000; // the server shows a sign of life every fifteen seconds
const LONGEST = 20_000;
const LIMIT = 1_000_000;

/** Splits a stream of text into events; one object per event. */
export class Parser {
  #rest = "";

  /** The events that are complete with this piece. */
  *push(piece) {
    this.#rest += piece;
    if (this.#rest.length > LIMIT) throw new Error("an event is too long");
    for (let end = this.#rest.indexOf("\n\n"); end >= 0; end = this.#rest.indexOf("\n\n")) {
      const event = read(this.#rest.slice(0, end));
      this.#rest = this.#rest.slice(end + 2);
      if (event !== null) yield event;
    }
  }
}

function read(block) {
  const event = { id: null, name: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "id") event.id = value;
    else if (field === "event") event.name = value;
    else if (field === "data") event.data += value;
  }
  return event.data === "" ? null : { ...event, data: JSON.parse(event.data) };
}

/** Follows the events for as long as the page lives, and comes back after every break. */
export class Feed {
  #last = null;
  #failures = 0;
  #stop = null;
  #wake = null;
  #asleep = false;

  constructor(api, { onEvent, onState }) {
    this.api = api;
    this.onEvent = onEvent;
    this.onState = onState;
  }

  async start() {
    for (;;) {
      const problem = await this.#connect();
      if (this.#asleep) {
        await this.#pause(Infinity);
        continue;
      }
      this.onState(problem?.wantsToken ? "locked" : "retrying", problem);
      await this.#pause(problem?.wantsToken ? Infinity : this.#delay());
    }
  }

  /** Connect anew, now: after another token, or when the network is back. */
  restart() {
    this.#failures = 0;
    this.#stop?.abort();
    this.#wake?.();
  }

  /** Let go of the connection until `wake`. */
  sleep() {
    this.#asleep = true;
    this.#stop?.abort();
  }

  /** Connect again after `sleep`, with what was missed. */
  wake() {
    if (!this.#asleep) return;
    this.#asleep = false;
    this.restart();
  }

  #delay() {
    this.#failures += 1;
    return Math.min(LONGEST, 500 * 2 ** this.#failures) * (0.75 + Math.random() / 2);
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (milliseconds !== Infinity) setTimeout(resolve, milliseconds);
    });
  }

  async #connect() {
    const stop = (this.#stop = new AbortController());
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), QUIET);
    };
    try {
      alive();
      const headers = this.#last === null ? {} : { "last-event-id": this.#last };
      const response = await this.api.stream("events", stop.signal, headers);
      this.onState("live");
      await this.#consume(response.body.getReader(), alive);
      return null;
    } catch (error) {
      return error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #consume(reader, alive) {
    const decoder = new TextDecoder();
    const parser = new Parser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      this.#failures = 0;
      for (const event of parser.push(decoder.decode(value, { stream: true }))) {
        if (event.id !== null) this.#last = event.id;
        this.onEvent(event.name, event.data);
      }
    }
  }
}
