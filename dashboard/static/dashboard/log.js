// @ts-check
/** The log panel: a custom element, so that it starts and stops with its markup. */

import { Lines } from "./lines.js";
import { LiveSocket } from "./socket.js";

/** So near to the page's end the reader follows. */
const NEAR_PX = 48;
const EARLIER_ROWS = 300_000;

/** @typedef {import("./lines.js").Frame} Frame */

export class StepLog extends HTMLElement {
  /** @type {Lines | null} */
  lines = null;
  /** @type {LiveSocket | null} */
  socket = null;
  /** @type {(Frame & {end: number | null})[]} */
  queue = [];
  following = false;
  running = false;
  lastTop = 0;
  abort = new AbortController();

  connectedCallback() {
    this.abort = new AbortController();
    const place = this.querySelector(".log-lines");
    if (!(place instanceof HTMLElement) || "search" in this.dataset) return;
    this.lines = new Lines(
      place,
      Number(this.dataset.next),
      "open" in this.dataset,
      (first, limit) => this.fetchLines(first, limit),
    );
    this.running = this.isLive;
    this.listen();
    this.wrapButton();
    if (this.running) this.tail();
    this.reveal();
  }

  disconnectedCallback() {
    this.abort.abort();
    this.socket?.close();
    this.lines?.stop();
    this.queue.length = 0;
    this.running = false;
  }

  /** Whether lines may still come, and the page shows the end of the log. */
  get isLive() {
    const { complete, never, next, total } = this.dataset;
    return complete === undefined && never === undefined && Number(next) >= Number(total);
  }

  /** Whether the reader scrolled away from the end, or marked a line. */
  get readerIsAway() {
    return Boolean(this.lines) && (location.hash.startsWith("#L") || this.scrolledUp);
  }

  get scrolledUp() {
    return scrollY > 4 && !atEnd();
  }

  listen() {
    const signal = this.abort.signal;
    addEventListener("hashchange", () => this.reveal(), { signal });
    addEventListener("scroll", () => this.scrolled(), { signal, passive: true });
    const earlier = this.querySelector("[data-earlier]");
    earlier?.addEventListener("click", (event) => this.showEarlier(event), { signal });
  }

  tail() {
    const button = this.followButton;
    if (button) {
      button.hidden = false;
      button.addEventListener("click", () => this.setFollowing(!this.following), {
        signal: this.abort.signal,
      });
    }
    this.setFollowing(!location.hash.startsWith("#L"));
    this.socket = new LiveSocket(
      () => `${this.dataset.socket}?from=${this.lines?.next ?? 0}`,
      (frame) => this.take(frame),
      (state) => this.state(state),
    );
  }

  /** @param {Frame & {end: number | null}} frame */
  take(frame) {
    this.queue.push(frame);
    if (this.queue.length === 1) requestAnimationFrame(() => this.flush());
  }

  flush() {
    const lines = this.lines;
    const frames = this.queue.splice(0);
    if (!lines || !this.isConnected) return;
    for (const frame of frames) {
      lines.append(frame, this.following || atEnd());
      if (frame.end !== null) this.ended();
    }
    if (lines.count) this.querySelector("[data-empty]")?.remove();
    if (this.following) toEnd();
  }

  ended() {
    this.running = false;
    this.socket?.close();
    this.say("");
    const button = this.followButton;
    if (button) button.hidden = true;
    const empty = this.querySelector("[data-empty]");
    if (empty && !this.lines?.count) empty.textContent = "This step printed nothing.";
    requestAnimationFrame(() => {
      if (this.following) toEnd();
      this.following = false;
      this.dispatchEvent(new CustomEvent("step-log:end", { bubbles: true }));
    });
  }

  /** @param {"open" | "lost" | "closed"} state */
  state(state) {
    if (state === "closed" && this.running) this.say("not live: reload the page");
    else this.say(state === "lost" ? "reconnecting…" : "");
  }

  /** @param {string} text */
  say(text) {
    const place = this.querySelector(".live-state");
    if (place && place.textContent !== text) place.textContent = text;
  }

  // ---- reading ---------------------------------------------------------------------------

  get followButton() {
    const button = this.querySelector("[data-follow]");
    return button instanceof HTMLButtonElement ? button : null;
  }

  /** @param {boolean} on */
  setFollowing(on) {
    this.following = on;
    this.followButton?.setAttribute("aria-pressed", String(on));
    if (on) toEnd();
  }

  scrolled() {
    const up = scrollY < this.lastTop - 2;
    this.lastTop = scrollY;
    if (!this.running) return;
    if (this.following && up && !atEnd()) this.setFollowing(false);
    else if (!this.following && !up && atEnd()) this.setFollowing(true);
  }

  wrapButton() {
    const button = this.querySelector("[data-wrap]");
    if (!(button instanceof HTMLButtonElement)) return;
    button.hidden = false;
    button.addEventListener(
      "click",
      () => {
        const wraps = !this.classList.toggle("nowrap-lines");
        button.setAttribute("aria-pressed", String(wraps));
      },
      { signal: this.abort.signal },
    );
  }

  /** Make room for earlier lines above; without a script the link opens them as a page.
   * @param {Event} event */
  showEarlier(event) {
    event.preventDefault();
    this.makeRoom();
  }

  makeRoom() {
    const until = Number(this.dataset.first);
    const first = Math.max(0, until - EARLIER_ROWS);
    const height = document.documentElement.scrollHeight;
    const top = scrollY;
    this.lines?.prepend(first, until);
    this.dataset.first = String(first);
    if (!first) this.querySelector(".log-more:has([data-earlier])")?.remove();
    scrollTo({ top: top + document.documentElement.scrollHeight - height, behavior: "instant" });
  }

  /** Mark the line of the address, `#L12`, fetching it where it is not in the page. */
  async reveal() {
    const match = /^#L(\d+)$/.exec(location.hash);
    const number = Number(match?.[1] ?? 0);
    if (number && number <= Number(this.dataset.first)) this.makeRoom();
    const line = await this.lines?.mark(number);
    if (line) line.scrollIntoView({ block: "center" });
    else if (number && number <= Number(this.dataset.total)) {
      location.href = `${this.dataset.here}?first=${number - 1}${location.hash}`;
    }
  }

  /** @param {number} first @param {number} limit @returns {Promise<Frame>} */
  async fetchLines(first, limit) {
    const answer = await fetch(`${this.dataset.lines}?first=${first}&limit=${limit}`, {
      signal: this.abort.signal,
    });
    if (!answer.ok) throw new Error(`lines: ${answer.status}`);
    return answer.json();
  }
}

function atEnd() {
  return scrollY + innerHeight >= document.documentElement.scrollHeight - NEAR_PX;
}

function toEnd() {
  scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}

customElements.define("step-log", StepLog);
