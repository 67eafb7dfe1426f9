// @ts-check
/** What every page has: times that stay fresh, copy buttons, questions before dangerous buttons,
 * and keys: j and k walk a list, / goes to the search. */

import { announce } from "./announce.js";
import { ago, duration } from "./words.js";

/** How much this machine's clock is ahead of the server's. */
const AHEAD_MS = Date.now() - Date.parse(document.body.dataset.now ?? new Date().toISOString());

const now = () => Date.now() - AHEAD_MS;

function refreshTimes() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const words = ago(now() - Date.parse(time.getAttribute("datetime") ?? ""));
    if (words && time.textContent !== words) time.textContent = words;
  }
}

function tick() {
  for (const element of document.querySelectorAll("[data-since]")) {
    const since = Date.parse(element.getAttribute("data-since") ?? "");
    element.textContent = duration(now() - since);
  }
}

function showCopyButtons() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    if (!(button instanceof HTMLButtonElement) || !navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy ?? "");
      await navigator.clipboard.writeText(source?.textContent ?? "");
      announce("Copied");
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
}

/** @param {Event} event */
function ask(event) {
  const button = event.target instanceof Element ? event.target.closest("[data-confirm]") : null;
  const question = button?.getAttribute("data-confirm");
  if (question && !confirm(question)) event.preventDefault();
}

/** @param {number} by */
function walk(by) {
  const links = [...document.querySelectorAll("[data-keys] .main-link, [data-keys] .step")];
  if (!links.length) return;
  const here = links.findIndex((link) => link === document.activeElement);
  const current = links.findIndex((link) => link.hasAttribute("aria-current"));
  const from = here >= 0 ? here : current >= 0 ? current : by > 0 ? -1 : links.length;
  const next = links[Math.min(links.length - 1, Math.max(0, from + by))];
  if (next instanceof HTMLElement) next.focus();
}

/** @param {KeyboardEvent} event */
function key(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target instanceof HTMLElement && target.matches("input, textarea, select")) return;
  if (event.key === "j") walk(1);
  else if (event.key === "k") walk(-1);
  else if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (!(search instanceof HTMLElement)) return;
    search.focus();
    event.preventDefault();
  }
}

document.addEventListener("click", ask);
document.addEventListener("keydown", key);
document.addEventListener("htmx:afterSwap", refreshTimes);
showCopyButtons();
refreshTimes();
setInterval(tick, 1000);
setInterval(refreshTimes, 30_000);
