// The record of a device: what it may, where that is from, and what an administrator lays down over the settings.

import { at, call, get, may } from "./api.js";
import { ask } from "./dialogs.js";
import { button, code, facts, h, mark, moment } from "./dom.js";

const limits = (value, nothing) => (value === null || value === undefined ? nothing : Array.isArray(value) ? value.join(", ") || "none" : String(value));
const LISTS = ["labels", "clients", "targets", "ports", "services", "web"];
const FIELDS = [
  { name: "labels", label: "Labels", hint: "that grants may call it by, such as line=3, hall-b" },
  { name: "clients", label: "Clients from", hint: "networks with commas between; any, none" },
  { name: "targets", label: "May offer", hint: "names of services, HOST:PORT; any, none" },
  { name: "ports", label: "Ports", hint: "client ports that it may have, LOW-HIGH; any, none" },
  { name: "leases", label: "Client ports at most", kind: "number", min: "0", max: "65535", required: true },
  { name: "channels", label: "Channels at most (0: any number)", kind: "number", min: "0", max: "65535", required: true },
  { name: "at_once", label: "Clients of one service at once (0: any number)", kind: "number", min: "0", max: "65535", required: true },
  { name: "expires", label: "Last day", hint: "2027-12-31, or never", required: true },
  { name: "sessions", label: "Remote sessions", kind: "select", words: [["any", "any that a grant allows"], ["asked", "only if its site can be asked"], ["no", "none"]] },
  { name: "services", label: "Services that it does not say itself", hint: "NAME=HOST:PORT of a ThingWorx device or a localproxy" },
  { name: "web", label: "Services that are web pages", hint: "NAME=http, NAME=https or NAME=https-any, with commas between" },
  { name: "web_host", label: "Host that web pages are told", hint: "target: what the agent dials", required: true },
];

/** A value as its field has it. */
function written(name, value) {
  if (LISTS.includes(name)) return value === null ? "any" : value.join(", ") || (["labels", "services", "web"].includes(name) ? "" : "none");
  return value === null ? (name === "expires" ? "never" : "0") : String(value);
}

/** A field as the API has it. */
const meant = (name, text) => (LISTS.includes(name) ? String(text).split(",").map((each) => each.trim()).filter(Boolean) : text);

/** Lay down what differs; `done()` once it counts. */
export async function edit(serial, done) {
  const path = at`/devices/${serial}/record`;
  const row = await get(path);
  const kept = Object.keys(row.kept);
  ask({
    title: `The record of ${serial}`,
    text: "What is changed here is laid down over the settings, and stays until it is taken back. What it allows no more is cut at once: clients, channels, sessions.",
    fields: FIELDS.map((each) => ({ ...each, value: written(each.name, row[each.name]), label: kept.includes(each.name) ? `${each.label} (laid down here)` : each.label })),
    action: "Change",
    danger: true,
    work: async (values) => {
      const body = Object.fromEntries(FIELDS.filter(({ name }) => String(values[name]) !== written(name, row[name])).map(({ name }) => [name, meant(name, values[name])]));
      if (Object.keys(body).length) await call("PATCH", path, body, undefined, row);
      done();
    },
    done: `the record of ${serial} counts`,
  });
}

export function reset(serial, kept, done) {
  ask({
    title: `The record of ${serial} as the settings have it?`,
    text: `${kept.join(", ")}: what was laid down here counts no more. What the settings do not allow is cut at once.`,
    action: "Take back",
    danger: true,
    work: async () => {
      await call("DELETE", at`/devices/${serial}/record`);
      done();
    },
    done: `the record of ${serial} is that of the settings`,
  });
}

export function recorded(record) {
  return facts(
    ["Section", record.record ? code(record.record === "*" ? "[device *]" : `[device ${record.record}]`) : "none: the defaults"],
    record.kept.length ? ["Laid down here", record.kept.join(", ")] : null,
    ["Labels", record.labels.length ? record.labels.map((each) => h("span", { class: "chip" }, each)) : "none"],
    ["Clients from", limits(record.clients, "anywhere")],
    ["May offer", limits(record.targets, "anything")],
    ["Ports", limits(record.ports, "any")],
    ["Client ports", `at most ${record.leases}`],
    record.at_once ? ["Clients of a service", `at most ${record.at_once}`] : null,
    ["Channels", record.channels === null ? "any number" : `at most ${record.channels}`],
    ["Expires", record.expires ? [moment(record.expires), record.expired && mark("bad", "over")] : "never"],
    ["Remote sessions", record.muted ? [mark("warn", "muted"), ` ${record.muted}`] : record.sessions],
    record.web.length ? ["Web pages", record.web.join(", ")] : null,
    record.web_host !== "target" ? ["Told as Host", code(record.web_host)] : null,
    record.services.length ? ["Services", record.services.join(", ")] : null,
    record.locked.length ? ["Locked out", record.locked.join(", ")] : null,
  );
}

/** What can be done with it. */
export const changes = (serial, kept, done, wrong) => may.change && [
  button("Edit record", () => edit(serial, done).catch(wrong)),
  kept.length > 0 && button("Take back", () => reset(serial, kept, done), { class: "danger", "aria-label": "Take back what was laid down" }),
];
