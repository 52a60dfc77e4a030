// Client ports and the pools they are from.

import { at, call, get, may, pages } from "./api.js";
import { link } from "./devices.js";
import { ask } from "./dialogs.js";
import { age, button, h, mark, many, part, put, when } from "./dom.js";
import { Table } from "./table.js";

const KINDS = { reserved: "good", sticky: "off", quarantined: "warn", spoiled: "bad", unclaimed: "off" };
const MEANS = { reserved: "its device is here", sticky: "kept for a device that is away", quarantined: "given back, not given again yet", spoiled: "another program has it", unclaimed: "reserved in the settings, never opened" };
const choice = { text: "", state: "" };
const sorted = { column: 0, down: false };

function release(row, done) {
  ask({
    title: `Give back port ${row.port}?`,
    text: `Port ${row.port} of ${row.serial}/${row.target} is nobody's any more, and rests for the quarantine of its pool. When the device comes back it gets another.`,
    action: "Release",
    danger: true,
    work: async () => {
      await call("DELETE", at`/ports/${row.serial}/${row.target}`);
      done();
    },
    done: `port ${row.port} is given back`,
  });
}

function reserve(pools, done) {
  ask({
    title: "Reserve a port",
    text: "For a target of a device, also of one that was never here, until it is given back.",
    fields: [
      { name: "serial", label: "Serial", required: true },
      { name: "target", label: "Target", required: true },
      { name: "port", label: "Port (0: the one that it has, or a free one)", kind: "number", value: "0", min: "0", max: "65535" },
      { name: "pool", label: "Pool of a free one", kind: "select", value: "default", words: pools.map((name) => [name, name]) },
    ],
    action: "Reserve",
    work: async ({ serial, target, port, pool }) => {
      await call("POST", at`/ports/${serial}/${target}`, port ? { port } : { pool });
      done();
    },
    done: "the port is reserved",
  });
}

function unreserve(row, done) {
  ask({
    title: `Give back port ${row.port} that was reserved?`,
    text: `${row.serial}/${row.target} keeps it as others keep theirs, and no longer. What the settings reserve stays.`,
    action: "Unreserve",
    danger: true,
    work: async () => {
      await call("POST", at`/ports/${row.serial}/${row.target}/unreserve`);
      done();
    },
    done: `port ${row.port} is not reserved any more`,
  });
}

/** What can be done with a port as it is. */
function acts(row, done) {
  if (row.fixed) return button("Unreserve", () => unreserve(row, done), { class: "danger", "aria-label": `Unreserve port ${row.port}` });
  return row.state === "sticky" ? button("Release", () => release(row, done), { class: "danger", "aria-label": `Release port ${row.port}` }) : "";
}

const columns = (done) => [
  { title: "Port", kind: "main", cell: (row) => String(row.port), sort: (row) => row.port },
  { title: "State", kind: "state", cell: (row) => [mark(KINDS[row.state] ?? "off", row.state, MEANS[row.state]), row.fixed && h("span", { class: "quiet" }, " fixed")], sort: (row) => row.state },
  { title: "Device", cell: (row) => (row.serial ? link(row.serial) : "–"), sort: (row) => row.serial },
  { title: "Target", cell: (row) => row.target || "–", sort: (row) => row.target },
  { title: "Taken there", cell: (row) => (row.open ? "yes" : "no"), sort: (row) => row.open, hint: "whether clients are taken there" },
  { title: "Address", kind: "less", cell: (row) => row.address || "–", sort: (row) => row.address },
  { title: "Pool", cell: (row) => row.pool, sort: (row) => row.pool },
  { title: "Since", kind: "less", cell: (row) => when(row.since), sort: (row) => (row.since ? -Date.parse(row.since) : null) },
  { title: "Ends in", cell: (row) => (row.left === null ? "–" : age(row.left)), sort: (row) => row.left },
  ...(may.change ? [{ title: "Actions", kind: "acts", cell: (row) => acts(row, done) }] : []),
];

const POOL = [
  { title: "Pool", kind: "main", cell: (row) => row.pool },
  ...[["Size", "size"], ["Free", "free"], ["Leased", "leased"], ["Sticky", "sticky"], ["Fixed", "fixed"], ["Quarantined", "quarantined"], ["Spoiled", "spoiled"]].map(([title, name]) => ({ title, kind: "number", cell: (row) => (row[name] ?? 0).toLocaleString() })),
];

export function view() {
  let rows = [];
  let names = ["default"];
  const reading = new AbortController();
  const wrong = h("p", { class: "wrong", role: "alert" });
  const count = h("p", { class: "count", role: "status" });
  const pools = new Table({ label: "Pools", columns: POOL, key: (row) => row.pool, empty: "There is no pool." });
  const read = async () => {
    put(wrong);
    try {
      const { ports } = await get("/status", reading.signal);
      names = Object.keys(ports);
      pools.set(Object.entries(ports).map(([pool, about]) => ({ pool, ...about })));
      const found = [];
      for await (const page of pages("/ports", reading.signal)) {
        found.push(...page);
        rows = found;
        show();
      }
      rows = found;
      show();
    } catch (error) {
      if (error.name !== "AbortError") put(wrong, error.message);
    }
  };
  const table = new Table({ label: "Client ports", columns: columns(read), key: (row) => String(row.port), sorted, onsort: () => show(), empty: "No port is promised." });
  const words = h("input", { type: "search", id: "port-search", placeholder: "port, serial, target …", autocomplete: "off", spellcheck: "false", oninput: () => ((choice.text = words.value), show()) });
  words.value = choice.text;
  const states = h("select", { id: "port-state", onchange: () => ((choice.state = states.value), show()) }, [["", "all"], ...Object.keys(KINDS).map((each) => [each, each])].map(([value, text]) => h("option", { value, selected: value === choice.state }, text)));
  const show = () => {
    const wanted = choice.text.toLowerCase().split(/\s+/);
    const found = rows.filter((row) => (!choice.state || row.state === choice.state) && wanted.every((word) => `${row.port} ${row.serial} ${row.target} ${row.address}`.toLowerCase().includes(word)));
    put(count, found.length === rows.length ? many(rows.length, "port") : `${found.length.toLocaleString()} of ${many(rows.length, "port")}`);
    table.set(found);
  };
  read();
  const node = [
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Ports and pools"), button("Read again", read)),
    wrong,
    part("Pools", null, pools.node),
    part("Client ports", may.change && button("Reserve a port", () => reserve(names, read)), h("div", { class: "bar", role: "search" }, h("label", { for: "port-search", class: "grow" }, "Search ", words), h("label", { for: "port-state" }, "State ", states)), count, table.node),
  ];
  return { title: "Ports and pools", node, stop: () => (reading.abort(), table.stop(), pools.stop()) };
}
