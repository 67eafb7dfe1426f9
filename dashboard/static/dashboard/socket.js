// @ts-check
/**
 * A websocket that comes back: after a loss it tries again, at first soon, then up to every 15 s,
 * and at once when the network or the page is back.
 */

const FIRST_MS = 400;
const LONGEST_MS = 15_000;
/** Closed by the server for good: all is said, log in first, no such thing. */
const FINAL = new Set([1000, 4401, 4404]);

export class LiveSocket {
  /**
   * @param {() => string} address the path to open, asked anew for every try
   * @param {(data: any) => void} onMessage
   * @param {(state: "open" | "lost" | "closed") => void} onState
   */
  constructor(address, onMessage, onState) {
    this.address = address;
    this.onMessage = onMessage;
    this.onState = onState;
    this.tries = 0;
    this.done = false;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.hurry = () => {
      if (!this.done && !this.socket && document.visibilityState === "visible") this.open();
    };
    addEventListener("online", this.hurry);
    document.addEventListener("visibilitychange", this.hurry);
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    const url = new URL(this.address(), location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    socket.onopen = () => {
      this.onState("open");
    };
    socket.onmessage = (event) => {
      this.tries = 0;
      this.onMessage(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.lost(event.code);
    };
  }

  /** @param {number} code */
  lost(code) {
    this.socket = null;
    if (this.done) return;
    if (FINAL.has(code)) {
      this.close();
      this.onState("closed");
      return;
    }
    this.onState("lost");
    const wait = Math.min(LONGEST_MS, FIRST_MS * 2 ** this.tries);
    this.tries += 1;
    this.timer = setTimeout(() => this.open(), wait * (0.75 + Math.random() / 2));
  }

  /** End it; nothing is reported any more. */
  close() {
    this.done = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.hurry);
    document.removeEventListener("visibilitychange", this.hurry);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }
}
