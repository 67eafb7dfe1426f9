// @ts-check
/** A build's page: the server says which stage changed, the page asks for its markup again. */

import { announce } from "./announce.js";
import { StepLog } from "./log.js";
import { LiveSocket } from "./socket.js";

const GATHER_MS = 120;

class BuildPage {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** Whether the page shows the step worth looking at, until a person chooses one. */
    this.auto = "auto" in root.dataset;
    /** Stages to ask for again; 0 is the build itself. @type {Set<number>} */
    this.changed = new Set();
    this.everything = false;
    this.asking = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.status = this.head?.dataset.status ?? "";
    /** @type {LiveSocket | null} */
    this.socket = null;
    root.addEventListener("click", (event) => {
      if (event.target instanceof Element && event.target.closest(".step")) this.auto = false;
    });
    if (this.head && "running" in this.head.dataset) this.watch();
  }

  get head() {
    return document.getElementById("build-head");
  }

  get log() {
    const log = document.getElementById("log");
    return log instanceof StepLog ? log : null;
  }

  watch() {
    const address = this.root.dataset.socket ?? "";
    this.socket = new LiveSocket(
      () => address,
      (data) => this.ring(data),
      (state) => this.root.toggleAttribute("data-lost", state === "lost"),
    );
  }

  /** Something changed: `{stage, status}`, or `{}` for "look yourself".
   * @param {{stage?: number}} data */
  ring(data) {
    if (data.stage === undefined) this.everything = true;
    else this.changed.add(data.stage);
    if (!this.asking) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), GATHER_MS);
    }
  }

  async ask() {
    this.asking = true;
    const query = new URLSearchParams();
    if (!this.everything) for (const stage of this.changed) query.append("stage", String(stage));
    const step = this.log?.dataset.step;
    if (step) query.set("step", step);
    this.changed.clear();
    this.everything = false;
    try {
      await htmx.ajax("GET", `${this.root.dataset.live}?${query}`, {
        source: "#build",
        target: "#build-head",
        swap: "none",
      });
    } catch {
      return; // the server is away: it says "look yourself" when it is back, and every 15 s
    } finally {
      this.asking = false;
    }
    // a person may have chosen another step meanwhile: ask again for that one
    if (this.log?.dataset.step !== step) this.everything = true;
    this.say();
    await this.follow();
    if (this.changed.size || this.everything) this.ring({});
    else if (this.head && !("running" in this.head.dataset)) this.socket?.close();
  }

  /** The new status, to the title and to screen readers. */
  say() {
    const { title, status } = this.head?.dataset ?? {};
    if (title) document.title = title;
    if (status && status !== this.status) {
      this.status = status;
      announce(`The build is now: ${status}`);
    }
  }

  /** Go on to the step worth looking at, once the shown log has ended. */
  async follow() {
    const { best, bestUrl } = this.head?.dataset ?? {};
    const log = this.log;
    if (!this.auto || !best || !bestUrl || best === log?.dataset.step) return;
    if (log && (log.running || log.readerIsAway)) return;
    await htmx.ajax("GET", bestUrl, { source: "#build", target: "#log", swap: "outerHTML" });
  }
}

const root = document.getElementById("build");
if (root) {
  const page = new BuildPage(root);
  document.addEventListener("step-log:end", () => page.follow());
}
