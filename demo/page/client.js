// The worker, as the page sees it: commands that are answered, events that come.
import { COMMANDS } from "../protocol.js";

/** What went wrong with a command: `title` says what, `note` what to do. */
export class Trouble extends Error {
  constructor({ title, note = "", details = "", kind = "", retry = null }) {
    super(title);
    Object.assign(this, { title, note, details, kind, retry });
  }

  /** An answer's error, which is a line of text or {title | problem, note | remedy, details, kind, retry}. */
  static from(error) {
    if (typeof error === "string") return new Trouble({ title: error });
    return new Trouble({
      title: error.title ?? error.problem ?? error.message ?? "It did not work",
      note: error.note ?? error.remedy ?? "",
      details: error.details ?? "",
      kind: error.kind ?? "",
      retry: error.retry ?? null,
    });
  }
}

export class Client {
  /**
   * @param {URL} url the worker's module
   * @param {{base: string, manifest: string}} boot
   * @param {(event: Object<string, any>) => void} onEvent
   */
  constructor(url, boot, onEvent) {
    Object.assign(this, { url, settings: boot, onEvent });
    this.worker = null;
    this.booted = null;
    this.waiting = new Map();
    this.next = 1;
  }

  /** Starts the worker and Python, once. */
  boot() {
    this.booted ??= this.post("boot", this.settings).catch((error) => {
      this.end();
      throw error;
    });
    return this.booted;
  }

  /**
   * Sends a command once Python is there. Raises Trouble when the worker refuses it or ends.
   * @param {string} command
   * @param {Object<string, any>} fields
   */
  async send(command, fields = {}) {
    await this.boot();
    return this.post(command, fields);
  }

  /** Starts the worker if need be, and posts. */
  post(command, fields) {
    for (const name of COMMANDS[command]) {
      if (!(name in fields)) throw new TypeError(`${command} needs ${name}`);
    }
    this.worker ??= this.start();
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, command, ...fields });
    });
  }

  start() {
    const worker = new Worker(this.url, { type: "module" });
    worker.onmessage = ({ data }) => this.receive(data);
    worker.onerror = (event) => this.crash(event.message ?? "the worker could not be loaded");
    worker.onmessageerror = () => this.crash("a message could not be read");
    return worker;
  }

  receive(message) {
    if (message.event) {
      this.onEvent(message);
      return;
    }
    const waiting = this.waiting.get(message.reply);
    this.waiting.delete(message.reply);
    if (message.error === undefined || message.error === null) waiting?.resolve(message.result ?? {});
    else waiting?.reject(Trouble.from(message.error));
  }

  crash(details) {
    if (!this.worker) return;
    this.end();
    this.onEvent({ event: "trouble", kind: "crash", title: "Python stopped", note: "", details, retry: null });
  }

  /** Ends the worker; whoever waits for an answer is told. The next command starts another. */
  end(why = new Trouble({ kind: "ended", title: "The worker was ended" })) {
    this.worker?.terminate();
    this.worker = null;
    this.booted = null;
    for (const { reject } of this.waiting.values()) reject(why);
    this.waiting.clear();
  }
}
