// The list of devices: searched, filtered, sorted; thousands of them.

import { may, my } from "./api.js";
import { enrol } from "./enrol.js";
import { button, h, many, mark, put, speed, trip, when } from "./dom.js";
import { fleet, readAgain, watch } from "./fleet.js";
import { Table } from "./table.js";

const choice = { text: "", state: "", label: "" };
const sorted = { column: 0, down: false };
const CHIPS = 4;

const troubled = (row) => row.conflict || row.targets.some((each) => each.problem || each.up === false);
const STATES = {
  "": ["all", () => true],
  online: ["online", (row) => row.online],
  away: ["away", (row) => !row.online],
  muted: ["muted", (row) => Boolean(row.muted)],
  trouble: ["with something wrong", troubled],
};

export const link = (serial) => h("a", { href: `#/devices/${encodeURIComponent(serial)}`, class: "serial" }, serial);

export function state(row) {
  return [mark(row.online ? "good" : "off", row.online ? "online" : "away"), row.muted && mark("warn", "muted", row.muted), row.conflict && mark("bad", "two holders", `two machines take its link from each other: ${row.conflict}`)];
}

/** A service by its name, its client port, and what is wrong with it. */
export function chip(target) {
  const wrong = target.problem ? "refused" : target.up === false ? "down" : "";
  const title = target.problem || target.detail || (target.up ? "it answers" : undefined);
  const number = target.port ?? null;
  return h("span", { class: `chip${wrong ? " bad" : target.up ? " good" : ""}`, title }, target.name, number && h("span", { class: "port" }, ` ${number}`), wrong && h("span", { class: "wrong" }, ` ${wrong}`));
}

export const wire = (row) => (row.link ? [row.link, row.way === "web" && " by web", row.tls ? ` · ${row.tls}` : "", row.node && ` at ${row.node}`] : "–");
const rank = (row) => (row.online ? 0 : 1) + (row.muted ? 0.5 : 0);
const weight = (each) => (each.problem || each.up === false ? 0 : 1); // what is wrong comes first
const services = (row) => [[...row.targets].sort((a, b) => weight(a) - weight(b)).slice(0, CHIPS).map(chip), row.targets.length > CHIPS && h("span", { class: "more" }, `+${row.targets.length - CHIPS}`), !row.targets.length && "–"];

const OWN = [
  { title: "Serial", kind: "main", cell: (row) => link(row.serial), sort: (row) => row.serial },
  { title: "State", kind: "state", cell: state, sort: rank },
];
const LABELS = { title: "Labels", kind: "labels", cell: (row) => row.labels.join(", ") || "–", sort: (row) => row.labels.join() };
const SEEN = [
  ...OWN,
  { title: "Since", cell: (row) => when(row.since), sort: (row) => (row.since ? -Date.parse(row.since) : null), hint: "how long it is here, or away" },
  { title: "Services and client ports", kind: "chips", cell: services, sort: (row) => row.targets.length },
  { title: "Clients", kind: "number", now: true, cell: (row) => String(row.channels ?? "–"), sort: (row) => row.channels, hint: "channels that run" },
  { title: "Round trip", kind: "number", now: true, cell: (row) => trip(row.round_trip), sort: (row) => row.round_trip },
  { title: "To device", kind: "number rate", now: true, cell: (row) => speed(row.rate?.[0]), sort: (row) => row.rate?.[0], hint: "bytes in a second, now" },
  { title: "To clients", kind: "number rate", now: true, cell: (row) => speed(row.rate?.[1]), sort: (row) => row.rate?.[1], hint: "bytes in a second, now" },
  { title: "Link", kind: "less", cell: wire, sort: (row) => (row.link ? `${row.link} ${row.node ?? ""}` : ""), hint: "its wire, and its node where there are several" },
];
const GRANTED = [...OWN, { title: "Services", kind: "chips", cell: services, sort: (row) => row.targets.length }, LABELS];

export function view() {
  const table = new Table({
    label: "Devices",
    columns: may.look ? SEEN : GRANTED,
    key: (row) => row.serial,
    sorted,
    onsort: () => {
      if (SEEN[sorted.column]?.now) readAgain();
      show();
    },
    empty: "",
  });
  const words = h("input", { type: "search", id: "search", placeholder: "serial, service, address …", autocomplete: "off", spellcheck: "false", oninput: () => choose({ text: words.value }) });
  words.value = choice.text;
  const states = h("select", { id: "state", onchange: () => choose({ state: states.value }) }, Object.entries(STATES).filter(([name]) => may.look || !["muted", "trouble"].includes(name)).map(([value, [text]]) => h("option", { value, selected: value === choice.state }, text)));
  const labels = h("select", { id: "label", onchange: () => choose({ label: labels.value }) });
  const labelled = h("label", { for: "label", hidden: true }, "Label ", labels);
  const count = h("p", { class: "count", role: "status" });
  let offered = "";

  const choose = (some) => {
    Object.assign(choice, some);
    window.scrollTo({ top: 0 });
    show();
  };

  const offer = (rows) => {
    const found = [...new Set(rows.flatMap((row) => row.labels))].sort().slice(0, 500);
    if (found.join() === offered) return;
    offered = found.join();
    labelled.hidden = !found.length;
    put(labels, h("option", { value: "" }, "any"), found.map((value) => h("option", { value, selected: value === choice.label }, value)));
  };

  const show = () => {
    const rows = [...fleet.rows.values()];
    offer(rows);
    const wanted = choice.text.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = STATES[choice.state][1];
    const found = rows.filter((row) => fits(row) && wanted.every((word) => row.text.includes(word)) && (!choice.label || row.labels.includes(choice.label)));
    const online = rows.filter((row) => row.online).length;
    const all = `${many(rows.length, "device")}, ${online.toLocaleString()} online`;
    put(count, found.length === rows.length ? all : `${found.length.toLocaleString()} of ${all}`, fleet.reading ? " – reading …" : "", fleet.problem && ` – not all were read: ${fleet.problem}`, !fleet.reading && !fleet.whole && !fleet.problem && " – there are more: search in the API");
    table.empty = empty(rows.length);
    table.set(found);
  };

  const empty = (known) => {
    if (fleet.reading) return "Reading …";
    if (known) return "No device fits. Take words or filters away.";
    if (may.change) return ["No device has come yet. ", button("Enrol a device", () => enrol(), { class: "main" }), " or run revtunnelctl enroll SERIAL."];
    return may.look ? "No device has come yet." : `No service is granted to ${my.me.user} yet. An administrator can: revtunnelctl grant ${my.me.user} DEVICE SERVICES`;
  };

  const stop = watch(show, () => table.seen.map((row) => row.serial));
  const node = [
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Devices"), may.change && button("Enrol a device", () => enrol(), { class: "main" })),
    h("div", { class: "bar", role: "search" }, h("label", { for: "search", class: "grow" }, "Search ", words), h("label", { for: "state" }, "State ", states), labelled),
    count,
    table.node,
  ];
  queueMicrotask(show);
  return { title: "Devices", node, stop: () => (stop(), table.stop()) };
}
