// The health of this node: what runs, what is wrong, certificates that end soon.

import { call, get, may } from "./api.js";
import { charts } from "./charts.js";
import { link } from "./devices.js";
import { ask } from "./dialogs.js";
import { age, button, code, facts, h, many, mark, moment, part, put, when } from "./dom.js";
import { again, fleet, watch } from "./fleet.js";
import { Table } from "./table.js";

const LOOK = 10_000;
const DAYS = [7, 30, 90, 365];
const choice = { days: 30 };

function reload() {
  ask({
    title: "Read the settings again?",
    text: "As SIGHUP does. When anything in them is wrong, nothing changes.",
    action: "Reload",
    work: async () => {
      const { changed, needs_restart: later, errors } = await call("POST", "/reload");
      if (errors.length) throw Object.assign(new Error(`Nothing has changed: ${errors.join("; ")}`), { status: 0 });
      ask({ title: "The settings are read", text: `In force now: ${changed.join(", ") || "nothing new"}. ${later.length ? `Before the next start: ${later.join(", ")}.` : ""}`, action: "Good", work: async () => {} });
    },
  });
}

function drain(name) {
  ask({
    title: `Stop ${name} in order?`,
    text: "No new clients are taken, sessions of people end, and the server ends when its channels have. This page ends with it.",
    fields: [{ name: "name", label: `Write ${name} to go on`, required: true }],
    action: "Drain",
    danger: true,
    work: async (values) => {
      if (values.name !== name) throw Object.assign(new Error("that is another name"), { status: 0 });
      await call("POST", "/drain");
    },
    done: "the server drains",
  });
}

function problems(row, head) {
  const found = [
    row.state !== "running" && ["warn", "draining", "no new clients are taken"],
    row.ledger_problem && ["bad", "state file", row.ledger_problem],
    row.audit_problem && ["bad", "audit file", row.audit_problem],
    ...(row.forked ?? []).map((serial) => ["bad", "certificate", `${serial}: one of its certificates was renewed for two keys; revoke it`]),
    row.penalties > 0 && ["warn", "locked out", `${many(row.penalties, "address or serial", "addresses and serials")} failed too often`],
    row.muted > 0 && ["off", "muted", `${many(row.muted, "device")} take no remote sessions`],
    head && !head.file && ["off", "audit", "no audit file is written: sessions leave no record"],
  ].filter(Boolean);
  if (!found.some(([kind]) => kind !== "off")) found.unshift(["good", "well", "nothing is wrong"]);
  return h("ul", { class: "problems" }, found.map(([kind, word, text]) => h("li", {}, mark(kind, word), ` ${text}`)));
}

const ends = (row) => (Date.parse(row.certificate_until) - Date.now()) / 86400000;
const CERTIFICATES = [
  { title: "Device", kind: "main", cell: (row) => link(row.serial), sort: (row) => row.serial },
  { title: "Ends", cell: (row) => when(row.certificate_until), sort: (row) => Date.parse(row.certificate_until) },
  { title: "At", cell: (row) => moment(row.certificate_until) },
  { title: "State", kind: "state", cell: (row) => (ends(row) < 0 ? mark("bad", "over") : ends(row) < 7 ? mark("bad", "ends in days") : mark("warn", "ends soon")) },
  { title: "Fingerprint", kind: "less", cell: (row) => code(row.certificate.slice(0, 16)) },
];

export function view() {
  const wrong = h("p", { class: "wrong", role: "alert" });
  const health = h("div", { role: "status" });
  const about = h("div", {});
  const authority = h("div", {});
  const counted = h("div", {});
  const drawn = charts();
  const acts = h("div", { class: "actions" });
  const days = h("select", { id: "days", onchange: () => ((choice.days = Number(days.value)), certificates()) }, DAYS.map((value) => h("option", { value, selected: value === choice.days }, `${value} days`)));
  const table = new Table({ label: "Certificates that end soon", columns: CERTIFICATES, key: (row) => row.serial, sorted: { column: 1, down: false } });
  const certificates = () => {
    table.empty = fleet.reading ? "Reading devices …" : `Of the devices that are here, no certificate ends within ${choice.days} days.`;
    table.set([...fleet.rows.values()].filter((row) => row.certificate_until && ends(row) < choice.days));
  };
  let first = true;
  const look = async () => {
    try {
      const [row, head] = await Promise.all([get("/status"), get("/audit/head").catch(() => null), drawn.refresh()]);
      put(wrong);
      put(health, problems(row, head));
      put(about, facts(
        ["Name", row.name], ["Version", `revtunnel ${row.version}`], ["State", mark(row.state === "running" ? "good" : "warn", row.state)],
        ["Up", [age(row.uptime), ` · since ${moment(row.since)}`]],
        ["Devices", row.devices], ["Links", row.links], ["Clients", row.clients], ["Channels", row.channels], ["Remote sessions", row.remote_sessions], ["Users", row.users],
        head?.file ? ["Audit", [`record ${head.seq} `, code(String(head.hash).slice(0, 16))]] : null));
      put(counted, facts(...Object.entries(row.counts).sort().map(([name, count]) => [name, typeof count === "object" ? Object.entries(count).map(([word, number]) => `${word} ${number}`).join(", ") : count.toLocaleString()])));
      if (first && may.change) put(acts, button("Reload settings", reload), button("Drain", () => drain(row.name), { class: "danger" }));
      first = false;
    } catch (error) {
      put(wrong, error.message);
    }
  };
  get("/authority").then(
    (row) => put(authority, facts(["Until", [when(row.until), ` · ${moment(row.until)}`]], ["Fingerprint", code(row.fingerprint)], ["Certificates issued", row.certificates], ["Tokens that wait", row.tokens])),
    (error) => put(authority, h("p", { class: "nothing" }, error.word === "not-found" ? "The server has none: devices prove themselves by keys. revtunnelctl ca init makes one." : error.message)));
  const stops = [again(() => (document.hidden ? Promise.resolve() : look()), LOOK), watch(certificates)];
  look();
  certificates();
  const node = [
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Server"), acts),
    wrong, part("Health", null, health), part("The last hour", null, drawn.node),
    part("Certificates that end soon", h("label", { for: "days" }, "within ", days), table.node),
    h("div", { class: "two" }, part("This node", null, about), part("Authority", null, authority)),
    part("What happened since the start", null, h("details", {}, h("summary", {}, "Counts of events"), counted)),
  ];
  return { title: "Server", node, stop: () => (stops.forEach((stop) => stop()), table.stop()) };
}
