// @ts-check
/**
 * A shell in a failed step: a terminal here, a pseudo terminal there, a websocket in between.
 * Words are JSON (`pipeline.wire.Shell`), bytes are binary. Both ways so many bytes may be under
 * way; the other end says what it `took`, so that a flood stays where it comes from.
 */

import { FitAddon } from "../npm/xterm-fit/addon-fit.mjs";
import { Terminal } from "../npm/xterm/xterm.mjs";
import { announce } from "./announce.js";

const INPUT_BYTES = 64 * 1024;
const FRAME_BYTES = 16 * 1024;
/** What is pasted beyond this is left out. */
const MOST_TYPED_BYTES = 1024 * 1024;
const FIRST_MS = 400;
const LONGEST_MS = 10_000;
const ENDED = 1000;
const IN_USE = 4409;
/** Closed by the server for good: log in, may not, no such thing, in use, too much. */
const FINAL = new Set([ENDED, 4401, 4403, 4404, IN_USE, 4413]);

/** The terminal makes its own styles; the page's policy lets them in by their nonce.
 * @param {string} nonce */
function allowStyles(nonce) {
  const create = document.createElement.bind(document);
  document.createElement = /** @type {typeof document.createElement} */ (
    (/** @type {string} */ name, /** @type {ElementCreationOptions | undefined} */ options) => {
      const element = create(name, options);
      if (element instanceof HTMLStyleElement) element.nonce = nonce;
      return element;
    }
  );
}

class Shell {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.state = /** @type {HTMLElement} */ (root.querySelector(".live-state"));
    this.again = /** @type {HTMLButtonElement} */ (root.querySelector("[data-again]"));
    this.terminal = new Terminal({
      cursorBlink: true,
      fontFamily: getComputedStyle(root).getPropertyValue("--mono"),
      fontSize: 13,
      scrollback: 5000,
      theme: { background: "#12161c", foreground: "#d5dbe3" },
    });
    this.fit = new FitAddon();
    /** @type {WebSocket | null} */
    this.socket = null;
    this.attached = false;
    this.force = false;
    this.tries = 0;
    /** Typed and not sent. @type {Uint8Array[]} */
    this.typed = [];
    this.typedBytes = 0;
    /** Bytes sent that have not reached the shell. */
    this.underWay = 0;
    this.encoder = new TextEncoder();
    this.begin();
  }

  begin() {
    const place = /** @type {HTMLElement} */ (this.root.querySelector(".shell-place"));
    this.terminal.loadAddon(this.fit);
    this.terminal.open(place);
    this.fit.fit();
    this.terminal.onData((text) => this.type(this.encoder.encode(text)));
    this.terminal.onBinary((text) => this.type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.terminal.onResize(({ cols, rows }) => this.say({ kind: "resize", cols, rows }));
    new ResizeObserver(() => this.fit.fit()).observe(place);
    this.again.addEventListener("click", () => {
      this.again.hidden = true;
      this.force = true;
      this.open();
    });
    this.open();
  }

  open() {
    const url = new URL(this.root.dataset.socket ?? "", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("cols", String(this.terminal.cols));
    url.searchParams.set("rows", String(this.terminal.rows));
    if (this.force) url.searchParams.set("force", "1");
    this.force = false;
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => {
      if (typeof event.data === "string") this.hear(JSON.parse(event.data));
      else this.show(new Uint8Array(event.data), socket);
    };
    socket.onclose = (event) => this.lost(event);
    this.socket = socket;
  }

  /** @param {CloseEvent} event */
  lost(event) {
    this.socket = null;
    this.attached = false;
    if (!FINAL.has(event.code)) {
      this.tell("reconnecting…");
      const wait = Math.min(LONGEST_MS, FIRST_MS * 2 ** this.tries);
      this.tries += 1;
      setTimeout(() => this.open(), wait * (0.75 + Math.random() / 2));
      return;
    }
    this.tell(event.reason || "ended");
    this.again.hidden = event.code !== IN_USE;
    this.terminal.options.disableStdin = event.code !== IN_USE;
    this.terminal.options.cursorBlink = false;
  }

  /** @param {string} text */
  tell(text) {
    this.state.textContent = text;
    if (text) announce(text);
  }

  /** @param {{kind: string, text?: string, bytes?: number, code?: number}} word */
  hear(word) {
    if (word.kind === "attached") {
      this.terminal.reset();
      this.attached = true;
      this.tries = 0;
      this.underWay = 0;
      this.tell("connected");
      this.terminal.focus();
      this.send();
    } else if (word.kind === "took") {
      this.underWay = Math.max(0, this.underWay - (word.bytes ?? 0));
      this.send();
    } else if (word.kind === "waiting") {
      this.attached = false;
      this.tell(word.text ?? "waiting for the agent…");
    } else if (word.kind === "ended") {
      const code = (word.code ?? -1) >= 0 ? `, exit code ${word.code}` : "";
      this.terminal.write(`\r\n\x1b[2m[debugging ended: ${word.text ?? ""}${code}]\x1b[0m\r\n`);
    }
  }

  /** What the shell has written; taken once it is on the screen.
   * @param {Uint8Array} data @param {WebSocket} socket */
  show(data, socket) {
    this.terminal.write(data, () => {
      if (this.socket === socket) this.say({ kind: "took", bytes: data.length });
    });
  }

  /** @param {object} word */
  say(word) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(word));
  }

  /** @param {Uint8Array} data */
  type(data) {
    if (this.typedBytes + data.length > MOST_TYPED_BYTES) {
      this.tell("that was too much at a time");
      return;
    }
    for (let at = 0; at < data.length; at += FRAME_BYTES) {
      this.typed.push(data.subarray(at, at + FRAME_BYTES));
    }
    this.typedBytes += data.length;
    this.send();
  }

  send() {
    while (this.attached && this.socket && this.typed.length) {
      const next = this.typed[0];
      if (this.underWay + next.length > INPUT_BYTES) return;
      this.typed.shift();
      this.typedBytes -= next.length;
      this.underWay += next.length;
      this.socket.send(/** @type {Uint8Array<ArrayBuffer>} */ (next));
    }
  }
}

const root = document.getElementById("shell");
if (root) {
  allowStyles(root.dataset.nonce ?? "");
  new Shell(root);
}
