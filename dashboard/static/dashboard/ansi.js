// @ts-check
/**
 * Colours in a log line: terminal escapes to spans with classes, everything else dropped.
 * `presenters/ansi.py` does the same on the server; both are tested with
 * tests/dashboard/ansi_cases.json.
 *
 * @typedef {{text: string, classes: string}} Span
 * @typedef {{flags: string, fore: number | null, back: number | null}} Style
 */

// CSI | OSC (titles, links) | character sets | other escapes | control characters but the tab
const TOKEN =
  // eslint-disable-next-line no-control-regex
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]+[0-~]?|\x1b[0-~]?|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f]/g;

/** @type {Readonly<Record<number, string>>} */
const ON = { 1: "b", 2: "d", 3: "i", 4: "u", 7: "r", 9: "s" };
/** @type {Readonly<Record<number, string>>} */
const OFF = { 22: "bd", 23: "i", 24: "u", 27: "r", 29: "s" };
const ORDER = "bdius";

/**
 * Split a line into styled spans. A carriage return starts the line over, as on a terminal.
 * @param {string} line
 * @returns {Span[]}
 */
export function spans(line) {
  line = line.replace(/\r+$/, "");
  line = line.slice(line.lastIndexOf("\r") + 1);
  /** @type {Span[]} */
  const found = [];
  /** @type {Style} */
  const style = { flags: "", fore: null, back: null };
  let at = 0;
  for (const token of line.matchAll(TOKEN)) {
    push(found, line.slice(at, token.index), style);
    at = token.index + token[0].length;
    if (token[2] === "m") apply(style, token[1] ?? "");
  }
  push(found, line.slice(at), style);
  return found;
}

/** @param {Span[]} found @param {string} text @param {Style} style */
function push(found, text, style) {
  if (!text) return;
  const last = found.at(-1);
  const classes = classesOf(style);
  if (last && last.classes === classes) last.text += text;
  else found.push({ text, classes });
}

/** @param {Style} style */
function classesOf(style) {
  const words = [...ORDER].filter((flag) => style.flags.includes(flag));
  let { fore, back } = style;
  if (style.flags.includes("r")) {
    if (fore === null && back === null) words.push("r");
    [fore, back] = [back === null && fore !== null ? 15 : back, fore];
  }
  if (fore !== null) words.push(`f${fore}`);
  if (back !== null) words.push(`g${back}`);
  return words.join(" ");
}

/** @param {Style} style @param {string} args */
function apply(style, args) {
  const codes = args.split(/[;:]/).map((part) => (/^\d+$/.test(part) ? Number(part) : 0));
  while (codes.length) {
    const code = codes.shift() ?? 0;
    if (code === 0) {
      style.flags = "";
      style.fore = style.back = null;
    } else if (code in ON) {
      style.flags += ON[code];
    } else if (code in OFF) {
      style.flags = [...style.flags].filter((flag) => !OFF[code].includes(flag)).join("");
    } else {
      colour(style, code, codes);
    }
  }
}

/** Set a colour; takes the arguments of 38 and 48 from `rest`.
 * @param {Style} style @param {number} code @param {number[]} rest */
function colour(style, code, rest) {
  /** @type {number | null} */
  let value = null;
  if (code === 38 || code === 48) value = extended(rest);
  else if ((code >= 30 && code <= 37) || (code >= 40 && code <= 47)) value = code % 10;
  else if ((code >= 90 && code <= 97) || (code >= 100 && code <= 107)) value = 8 + (code % 10);
  else if (code !== 39 && code !== 49) return;
  if (code === 48 || code === 49 || (code >= 40 && code <= 47) || code >= 100) style.back = value;
  else style.fore = value;
}

/** @param {number[]} rest */
function extended(rest) {
  const mode = rest.shift() ?? 0;
  if (mode === 5 && rest.length) return from256(rest.shift() ?? 0);
  if (mode === 2 && rest.length >= 3) {
    const [red, green, blue] = rest.splice(0, 3);
    return nearest(sixth(red), sixth(green), sixth(blue));
  }
  rest.length = 0;
  return null;
}

/** @param {number} part */
const sixth = (part) => Math.min(5, Math.floor((part + 25) / 51));

/** @param {number} number */
function from256(number) {
  if (number < 16) return number;
  if (number >= 232) return [0, 8, 7, 15][Math.min(3, Math.floor((number - 232) / 6))];
  const cube = number - 16;
  return nearest(Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6);
}

/** One of 16 for a colour given in sixths: its hue by the strong channels, bright from 4 on.
 * @param {number} red @param {number} green @param {number} blue */
function nearest(red, green, blue) {
  const most = Math.max(red, green, blue);
  const least = Math.min(red, green, blue);
  if (most - least <= 1) return [0, 8, 8, 7, 7, 15][most];
  const strong = (/** @type {number} */ part) => (part - least) * 5 >= (most - least) * 2;
  const bits = (strong(red) ? 1 : 0) + (strong(green) ? 2 : 0) + (strong(blue) ? 4 : 0);
  return bits + (most >= 4 ? 8 : 0);
}
