// @ts-check
/**
 * The lines of a log as chunks of rows, of which only those near the screen are in the document:
 * a million lines must not freeze the browser. A chunk that leaves keeps its height.
 *
 * `dropped`: so many lines before this one are missing; -1 where nobody counted them.
 *
 * @typedef {{position: number, text: string, ms: number, dropped: number}} Row
 * @typedef {{first: number, lines: string[], times: number[], open: boolean | number[]}} Frame
 */

import { spans } from "./ansi.js";
import { offset } from "./words.js";

const CHUNK_ROWS = 250;
/** Browsers draw no element higher than some 17 million pixels; this stays well below. */
const MAX_ROWS = 400_000;
const MARGIN = "1200px 0px";

class Chunk {
  /** @param {number} first @param {number} next @param {Row[] | null} rows null: not fetched yet */
  constructor(first, next, rows) {
    this.first = first;
    this.next = next;
    this.rows = rows;
    this.shown = false;
    this.asked = false;
    this.element = document.createElement("div");
    this.element.className = "chunk";
  }
}

export class Lines {
  /**
   * @param {HTMLElement} place the element that holds the chunks; its own are kept as they are
   * @param {number} next the position after the last line that is there
   * @param {boolean} open whether the line at `next` continues the last one
   * @param {(first: number, limit: number) => Promise<Frame>} fetchLines
   */
  constructor(place, next, open, fetchLines) {
    this.place = place;
    this.next = next;
    this.open = open;
    this.fetchLines = fetchLines;
    this.marked = 0;
    this.rowHeight = parseFloat(getComputedStyle(place).lineHeight) || 20;
    /** @type {Chunk[]} */
    this.chunks = [];
    /** @type {Map<Element, Chunk>} */
    this.byElement = new Map();
    this.count = place.querySelectorAll(".ln").length;
    this.observer = new IntersectionObserver((entries) => this.seen(entries), {
      rootMargin: MARGIN,
    });
  }

  stop() {
    this.observer.disconnect();
  }

  /** Put lines behind the last one. Lines that are there already are left out.
   * @param {Frame} frame @param {boolean} visible whether the end is on the screen */
  append(frame, visible) {
    const rows = this.rows(frame);
    for (let at = 0; at < rows.length; ) {
      let chunk = this.chunks.at(-1);
      if (!chunk?.rows || chunk.rows.length >= CHUNK_ROWS) chunk = this.add(rows[at].position);
      const room = rows.slice(at, at + CHUNK_ROWS - (chunk.rows?.length ?? 0));
      chunk.rows?.push(...room);
      chunk.next = (rows[at + room.length]?.position ?? this.next);
      at += room.length;
      const near = visible && rows.length - at < CHUNK_ROWS;
      if (near && !chunk.shown) this.show(chunk);
      else if (chunk.shown) chunk.element.append(...room.flatMap(elementsOf));
      else this.hold(chunk);
    }
    this.count += rows.length;
    this.trim();
  }

  /** New rows of a frame; a continued line goes to the row it belongs to.
   * @param {Frame} frame @returns {Row[]} */
  rows(frame) {
    /** @type {Row[]} */
    const rows = [];
    for (const row of unfold(frame)) {
      if (row.position < this.next) continue;
      const dropped = row.position - this.next;
      if (this.open && !dropped) this.continueLast(rows, row.text);
      else rows.push({ ...row, dropped });
      this.next = row.position + 1;
      this.open = row.open;
    }
    return rows;
  }

  /** @param {Row[]} fresh @param {string} text */
  continueLast(fresh, text) {
    const last = fresh.at(-1) ?? this.chunks.at(-1)?.rows?.at(-1);
    if (last) last.text += text;
    if (fresh.length) return;
    const element = this.place.querySelector(":scope > .chunk:last-child > .ln:last-child .t");
    if (!element) return;
    const whole = last ? last.text : (element.textContent ?? "") + text;
    element.replaceChildren(...pieces(whole));
  }

  /** Room for the lines [first, next) above all others; they are fetched when they come near.
   * @param {number} first @param {number} next */
  prepend(first, next) {
    const before = this.place.firstChild;
    const fresh = [];
    for (let at = first; at < next; at += 2 * CHUNK_ROWS) {
      const chunk = new Chunk(at, Math.min(next, at + 2 * CHUNK_ROWS), null);
      chunk.element.style.height = `${(chunk.next - chunk.first) * this.rowHeight}px`;
      this.place.insertBefore(chunk.element, before);
      this.byElement.set(chunk.element, chunk);
      fresh.push(chunk);
    }
    this.chunks.unshift(...fresh);
    this.count += next - first;
    for (const chunk of fresh) this.observer.observe(chunk.element);
  }

  /** Mark the row of a line, fetched if there is room for it; null if it is not in reach.
   * @param {number} number counts from 1; 0 takes the mark away */
  async mark(number) {
    this.place.querySelector(":scope .marked")?.classList.remove("marked");
    this.marked = number;
    if (!number) return null;
    if (!document.getElementById(`L${number}`)) await this.reveal(number);
    const line = document.getElementById(`L${number}`);
    line?.classList.add("marked");
    return line;
  }

  /** @param {number} number */
  async reveal(number) {
    const chunk = this.chunks.find((each) => each.first < number && number <= each.next);
    if (!chunk) return;
    if (!chunk.rows) await this.load(chunk);
    this.show(chunk);
  }

  /** @param {number} first */
  add(first) {
    const chunk = new Chunk(first, first, []);
    this.chunks.push(chunk);
    this.place.append(chunk.element);
    this.byElement.set(chunk.element, chunk);
    this.observer.observe(chunk.element);
    return chunk;
  }

  /** @param {IntersectionObserverEntry[]} entries */
  seen(entries) {
    for (const entry of entries) {
      const chunk = this.byElement.get(entry.target);
      if (!chunk) continue;
      if (!entry.isIntersecting) this.hide(chunk);
      else if (chunk.rows) this.show(chunk);
      else if (!chunk.asked) this.load(chunk).then(() => this.show(chunk));
    }
  }

  /** @param {Chunk} chunk */
  show(chunk) {
    if (chunk.shown || !chunk.rows) return;
    chunk.shown = true;
    chunk.element.style.height = "";
    chunk.element.replaceChildren(...chunk.rows.flatMap(elementsOf));
    if (chunk.first < this.marked && this.marked <= chunk.next) {
      document.getElementById(`L${this.marked}`)?.classList.add("marked");
    }
  }

  /** @param {Chunk} chunk */
  hide(chunk) {
    if (!chunk.shown) return;
    const height = chunk.element.getBoundingClientRect().height;
    chunk.shown = false;
    chunk.element.replaceChildren();
    chunk.element.style.height = `${height}px`;
  }

  /** Room for a chunk that is not shown, as high as it will be if no line wraps.
   * @param {Chunk} chunk */
  hold(chunk) {
    chunk.element.style.height = `${(chunk.rows?.length ?? 0) * this.rowHeight}px`;
  }

  /** @param {Chunk} chunk */
  async load(chunk) {
    chunk.asked = true;
    /** @type {Row[]} */
    const rows = [];
    let open = false;
    for (let at = chunk.first; at < chunk.next; ) {
      const frame = await this.fetchLines(at, chunk.next - at);
      if (!frame.lines.length || frame.first >= chunk.next) break;
      for (const row of unfold(frame)) {
        if (row.position >= chunk.next) break;
        const last = rows.at(-1);
        if (open && last) last.text += row.text;
        else rows.push({ ...row, dropped: row.position > at ? -1 : 0 });
        at = row.position + 1;
        open = row.open;
      }
    }
    chunk.rows = rows;
  }

  /** Forget the oldest chunks where there are too many for the browser. */
  trim() {
    while (this.count > MAX_ROWS && this.chunks.length > 2) {
      const first = this.place.firstElementChild;
      const chunk = first && this.byElement.get(first);
      this.count -= chunk ? chunk.next - chunk.first : (first?.childElementCount ?? 0);
      if (chunk) {
        this.observer.unobserve(chunk.element);
        this.byElement.delete(chunk.element);
        this.chunks.shift();
      }
      first?.remove();
    }
  }
}

/** @param {Frame} frame @returns {Iterable<Row & {open: boolean}>} */
function* unfold(frame) {
  const opens = new Set(Array.isArray(frame.open) ? frame.open : []);
  if (frame.open === true) opens.add(frame.lines.length - 1);
  for (const [index, text] of frame.lines.entries()) {
    const ms = frame.times[index] ?? 0;
    yield { position: frame.first + index, text, ms, dropped: 0, open: opens.has(index) };
  }
}

/** The markup of a row, as `_log.html` writes it.
 * @param {Row} row @returns {HTMLElement[]} */
function elementsOf(row) {
  const number = String(row.position + 1);
  const line = document.createElement("div");
  line.className = row.text.startsWith("+ ") ? "ln cmd" : "ln";
  line.id = `L${number}`;
  const link = document.createElement("a");
  link.className = "n";
  link.href = `#L${number}`;
  link.textContent = number;
  const time = document.createElement("time");
  time.textContent = offset(row.ms);
  const text = document.createElement("span");
  text.className = "t";
  text.append(...pieces(row.text));
  line.append(link, time, text);
  if (!row.dropped) return [line];
  const gap = document.createElement("p");
  gap.className = "log-end";
  const count = row.dropped < 0 ? "Lines" : `${row.dropped.toLocaleString("en")} lines`;
  gap.textContent = `${count} are missing here: the log was larger than its limit.`;
  return [gap, line];
}

/** @param {string} text @returns {(Node | string)[]} */
function pieces(text) {
  return spans(text).map((span) => {
    if (!span.classes) return span.text;
    const element = document.createElement("span");
    element.className = span.classes;
    element.textContent = span.text;
    return element;
  });
}
