// @ts-check
/** Times in plain words, as `presenters/words.py` writes them. */

/** @param {number} ms @returns {string} such as `12s`, `3m 05s`, `2h 07m` */
export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.floor(ms))} ms`;
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  if (!minutes) return `${seconds}s`;
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}h ${two(minutes % 60)}m` : `${minutes}m ${two(seconds % 60)}s`;
}

/** @param {number} ms @returns {string} such as `5 min ago`; empty beyond 30 days */
export function ago(ms) {
  const seconds = ms / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  const days = Math.round(seconds / 86400);
  if (days >= 30) return "";
  return `${days} day${days > 1 ? "s" : ""} ago`;
}

/** @param {number} ms @returns {string} a line's time since its step's start: `0:07` */
export function offset(ms) {
  const seconds = Math.floor(ms / 1000);
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours
    ? `${hours}:${two(minutes)}:${two(seconds % 60)}`
    : `${minutes}:${two(seconds % 60)}`;
}

/** @param {number} number */
const two = (number) => String(number).padStart(2, "0");
