// What happens, as it happens.

import { button, h, many, mark, put } from "./dom.js";
import { connected, events, hear } from "./live.js";

const KINDS = { info: "", warn: "warn", error: "bad", debug: "off" };
const LINES = 200; // that are shown
const choice = { text: "", level: "" };

const clock = (text) => {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleTimeString("sv");
};

function line(row) {
  const { ts, level, event, serial, ...more } = row;
  const said = Object.entries(more).filter(([, value]) => value !== "" && value !== null && value !== false).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : value}`);
  return h("li", { class: KINDS[level] ?? "" },
    h("time", { datetime: ts, title: ts }, clock(ts)), " ",
    h("b", {}, event), " ", level === "warn" || level === "error" ? [mark(KINDS[level], level), " "] : "",
    serial ? [h("a", { href: `#/devices/${encodeURIComponent(serial)}`, class: "serial" }, serial), " "] : "",
    h("span", { class: "quiet" }, said.join(" · ")));
}

/** Lines of events, the newest first. */
export function list(rows, empty) {
  return rows.length ? h("ul", { class: "events" }, rows.map(line)) : h("p", { class: "nothing" }, empty);
}

export function view() {
  let held = false;
  let frame = 0;
  let missed = 0;
  const place = h("ul", { class: "events" });
  const state = h("p", { class: "count", role: "status" });
  const words = h("input", { type: "search", id: "event-search", placeholder: "event, serial, reason …", autocomplete: "off", spellcheck: "false", oninput: () => again({ text: words.value }) });
  words.value = choice.text;
  const levels = h("select", { id: "event-level", onchange: () => again({ level: levels.value }) }, [["", "all"], ["warn", "warnings and errors"]].map(([value, text]) => h("option", { value, selected: value === choice.level }, text)));
  const hold = button("Hold", () => {
    held = !held;
    hold.textContent = held ? "Go on" : "Hold";
    hold.setAttribute("aria-pressed", String(held));
    missed = 0;
    if (!held) again({});
    head();
  }, { "aria-pressed": "false" });
  const fits = (row) => {
    if (choice.level && !["warn", "error"].includes(row.level)) return false;
    const text = JSON.stringify(row).toLowerCase();
    return choice.text.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  };
  const head = () => put(state, connected() ? mark("good", "live") : mark("warn", "not connected"), held ? ` held; ${many(missed, "event")} since` : connected() ? "" : " trying again …");
  const again = (some) => {
    Object.assign(choice, some);
    put(place, events.filter(fits).slice(0, LINES).map(line));
  };
  let waiting = [];
  const flush = () => {
    frame = 0;
    place.prepend(...waiting.reverse().map(line));
    waiting = [];
    while (place.childElementCount > LINES) place.lastElementChild.remove();
  };
  const stop = hear((row) => {
    head();
    if (row.event === "connected" || row.event === "lost" || row.event === "hello") return;
    missed += held;
    if (held || !fits(row)) return;
    waiting = [...waiting, row].slice(-LINES);
    frame ||= requestAnimationFrame(flush);
  });
  again({});
  head();
  const node = [
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Events"), hold),
    h("div", { class: "bar", role: "search" }, h("label", { for: "event-search", class: "grow" }, "Search ", words), h("label", { for: "event-level" }, "Level ", levels)),
    state,
    h("div", { class: "log", role: "log", "aria-label": "Events", "aria-live": "polite", "aria-relevant": "additions" }, place, h("p", { class: "nothing" }, "Nothing has happened yet that fits.")),
    h("p", { class: "hint" }, "The newest first, since this page was opened. The log of the server, and its audit file, have all."),
  ];
  return { title: "Events", node, stop: () => (stop(), cancelAnimationFrame(frame)) };
}

