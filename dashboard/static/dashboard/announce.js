// @ts-check

/** Tell screen readers.
 * @param {string} text */
export function announce(text) {
  const place = document.getElementById("announce");
  if (place) place.textContent = text;
}
