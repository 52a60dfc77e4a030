// Elements and values as people read them. Rule: what came from elsewhere becomes text and nothing else, and no
// character of it moves or hides what stands beside it.

// eslint-disable-next-line no-control-regex
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** A text with its control and direction characters in a notation that shows. */
export function shown(text) {
  return String(text).replace(HIDDEN, (each) => {
    const code = each.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** An element: its attributes (on...: what hears an event), then what is in it: elements and texts. */
export function h(name, about = {}, ...inside) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(about)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : shown(value));
  }
  fill(node, inside);
  return node;
}

function fill(node, inside) {
  for (const each of inside) {
    if (Array.isArray(each)) fill(node, each);
    else if (each instanceof Node) node.append(each);
    else if (each !== undefined && each !== null && each !== false) node.append(shown(each));
  }
}

/** Put other things into an element. */
export function put(node, ...inside) {
  node.replaceChildren();
  fill(node, inside);
  return node;
}

export function button(text, onclick, about = {}) {
  return h("button", { type: "button", onclick, ...about }, text);
}

let quiet = 0;

/** Say something at the edge of the page, to screen readers too. */
export function say(text, bad = false) {
  const place = document.getElementById("said");
  const over = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (place.parentNode !== over) over.append(place); // what is behind a dialog is not read out
  place.textContent = shown(text);
  place.classList.toggle("bad", bad);
  clearTimeout(quiet);
  quiet = setTimeout(() => place.replaceChildren(), bad ? 12000 : 6000);
}

// -- values

/** `812 B`, `1.5 KiB`, as revtunnelctl has it. */
export function size(count) {
  if (count === null || count === undefined) return "–";
  if (count < 1024) return `${Math.round(count)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  do {
    count /= 1024;
    unit += 1;
  } while (count >= 1023.95 && unit < units.length - 1);
  return `${count.toFixed(1)} ${units[unit]}`;
}

export function speed(count) {
  return count === null || count === undefined ? "–" : `${size(count)}/s`;
}

export function trip(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  if (ms >= 1000) return `${seconds.toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** A length of time in its two largest units. */
export function age(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const two = (a, b) => (b ? `${a} ${b}` : a);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return two(`${Math.floor(whole / 3600)} h`, whole % 3600 >= 60 && `${Math.floor((whole % 3600) / 60)} min`);
  return two(`${Math.floor(whole / 86400)} d`, whole % 86400 >= 3600 && `${Math.floor((whole % 86400) / 3600)} h`);
}

/** A time, as how long ago or ahead it is; the time itself on pointing. */
export function when(text) {
  if (!text) return "–";
  const seconds = (Date.now() - Date.parse(text)) / 1000;
  if (Number.isNaN(seconds)) return shown(text);
  return h("time", { datetime: text, title: moment(text) }, seconds < -1 ? `in ${age(-seconds)}` : age(seconds));
}

/** A time in the reader's own zone, written as ISO 8601 has it, which is what Swedish does. */
export function moment(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? shown(text ?? "–") : time.toLocaleString("sv");
}

export const many = (count, one, more = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : more}`;

/** A word of state, told by its colour too: good, off, warn, bad. */
export function mark(kind, word, title) {
  return h("span", { class: `mark ${kind}`, title }, word);
}

export const code = (text) => h("code", {}, text);

/** Names and values below each other. */
export function facts(...pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** A text to take along: shown whole, and copied on a click. */
export function copyable(text, label) {
  const field = h("textarea", { class: "copy", readonly: true, rows: Math.min(5, Math.ceil(text.length / 40)), "aria-label": label, spellcheck: "false", onfocus: () => field.select() });
  field.value = text;
  const done = button("Copy", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(text);
      say(`${label}: copied`);
    } catch {
      say(`${label}: selected; press Ctrl-C to copy`);
    }
  });
  return h("div", { class: "copied" }, field, done);
}

/** A part of a view with its heading; `actions` stand beside that. */
export function part(title, actions, ...inside) {
  return h("section", { class: "part", "aria-label": title }, h("div", { class: "head" }, h("h2", {}, title), h("div", { class: "actions" }, actions)), inside);
}
