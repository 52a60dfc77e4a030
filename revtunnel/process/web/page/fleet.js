// The devices that this page knows: read page by page, kept up by events, and those in sight looked at again.
// A person without a right to look has the devices of the services that are granted.

import { get, may, pages, query } from "./api.js";
import { hear } from "./live.js";

const MOST = 50_000; // devices that one page keeps
const LOOK = 5000; // ms between two looks at what is in sight
const ASKS = 4; // requests of one look
const ABOUT = 50; // devices of one request
const MEAN = 600; // s between two looks, of which a mean still says something
const OFTEN = 200; // devices with news from which on all are read again
const NEWS = new Set(["link-up", "link-down", "device-registered", "device-gone", "channel-opened", "channel-ended", "service-up", "service-down", "listener-opened", "listener-closed", "listener-refused"]);

export const fleet = {
  rows: new Map(), // by serial
  reading: false,
  whole: false, // all were read
  problem: "",
  read: 0, // when, by performance.now()
};
const watchers = new Set();
const news = new Set();
let seen = () => [];
let told = 0;
let reads = new AbortController();
let timers = [];

/** Be told when something differs; `insight()` gives the serials that somebody sees. */
export function watch(change, insight = () => []) {
  watchers.add(change);
  seen = insight;
  return () => {
    watchers.delete(change);
    seen = () => [];
  };
}

function changed() {
  if (told) return;
  told = setTimeout(() => {
    told = 0;
    for (const change of [...watchers]) change();
  }, 200);
}

/** The label as it is written: NAME or NAME=VALUE. */
const labelled = (labels) => (Array.isArray(labels) ? labels : Object.entries(labels ?? {}).map(([name, value]) => (value === "" || value === null || value === true ? name : `${name}=${value}`)));

/** Rows of either listing as devices. */
function devices(rows) {
  if (may.look) return rows;
  const found = new Map();
  for (const { device, service, port, web, online, labels } of rows) {
    if (!found.has(device)) found.set(device, { serial: device, online, labels, targets: [] });
    found.get(device).targets.push({ name: service, dials: port, web });
  }
  return [...found.values()];
}

function take(row) {
  const now = performance.now();
  const before = fleet.rows.get(row.serial);
  const labels = labelled(row.labels);
  const made = { ...row, labels, at: now, rate: null, text: [row.serial, ...labels, ...row.targets.map((each) => each.name), row.link, row.node, row.address, row.software].join(" ").toLowerCase() };
  if (row.bytes_to_device !== undefined && before) {
    const seconds = (now - before.at) / 1000;
    if (seconds < 1) Object.assign(made, { at: before.at, rate: before.rate, bytes_to_device: before.bytes_to_device, bytes_to_client: before.bytes_to_client });
    else if (seconds < MEAN) made.rate = [row.bytes_to_device - before.bytes_to_device, row.bytes_to_client - before.bytes_to_client].map((sum) => Math.max(0, sum) / seconds);
  }
  fleet.rows.set(row.serial, made);
}

/** A text before a serial, and behind all serials that stand before it. */
const before = (serial) => `${serial.slice(0, -1)}${String.fromCharCode(serial.charCodeAt(serial.length - 1) - 1)}~~~~`;
const path = () => (may.look ? "/devices" : "/my/services");

/** Look at some devices again, from one on; the serials that were found. */
async function look(serial, limit) {
  const page = await get(query(path(), { after: before(serial), limit }));
  const found = devices(page.rows);
  found.forEach(take);
  const serials = new Set(found.map((row) => row.serial));
  if (!serials.has(serial) && fleet.rows.delete(serial)) changed();
  return serials;
}

/** One device; undefined: there is none. */
export async function device(serial) {
  await look(serial, may.look ? 1 : 200);
  changed();
  return fleet.rows.get(serial);
}

/** Read all of them. */
export async function readAll() {
  reads.abort();
  reads = new AbortController();
  const { signal } = reads;
  Object.assign(fleet, { reading: true, problem: "" });
  const found = new Set();
  try {
    for await (const rows of pages(path(), signal, MOST * (may.look ? 1 : 4))) {
      for (const row of devices(rows)) {
        const known = !may.look && found.has(row.serial) ? fleet.rows.get(row.serial).targets : [];
        found.add(row.serial);
        take({ ...row, targets: [...known, ...row.targets] });
      }
      changed();
    }
    for (const serial of [...fleet.rows.keys()]) if (!found.has(serial)) fleet.rows.delete(serial);
    Object.assign(fleet, { reading: false, whole: found.size < MOST, read: performance.now() });
  } catch (error) {
    if (signal.aborted) return;
    Object.assign(fleet, { reading: false, problem: error.message });
  }
  changed();
}

/** Read all of them, if that was some time ago: of those out of sight only that says what they do now. */
export function readAgain() {
  if (!fleet.reading && performance.now() - fleet.read > LOOK) readAll();
}

/** All that is granted, where that is little: what was granted or revoked since is seen too; false: it is more. */
async function lookAtGranted() {
  const { rows, next } = await get(query(path(), { limit: 4 * ABOUT }));
  if (next) return false;
  const found = devices(rows);
  found.forEach(take);
  const serials = new Set(found.map((row) => row.serial));
  for (const serial of [...fleet.rows.keys()]) if (!serials.has(serial)) fleet.rows.delete(serial);
  changed();
  return true;
}

async function lookAround() {
  if (document.hidden || fleet.reading || !watchers.size) return;
  if (!may.look && fleet.rows.size < ABOUT && (await lookAtGranted())) return;
  const wanted = [...seen()].sort();
  for (let asks = 0; wanted.length && asks < ASKS; asks += 1) {
    const got = await look(wanted[0], ABOUT);
    got.add(wanted[0]);
    wanted.splice(0, wanted.length, ...wanted.filter((serial) => !got.has(serial)));
  }
  changed();
}

async function lookAtNews() {
  if (!news.size || fleet.reading || document.hidden) return;
  if (news.size > OFTEN) {
    news.clear();
    await readAll();
    return;
  }
  for (const serial of [...news].slice(0, ASKS)) {
    news.delete(serial);
    await look(serial, 1);
  }
  changed();
}

/** Ever again, one at a time, whatever fails. */
function again(work, pause) {
  let timer = 0;
  let over = false;
  const next = () => {
    timer = setTimeout(() => work().catch(() => {}).finally(() => over || next()), pause);
  };
  next();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}

/** A call of `work` a moment after it was asked for, one for all that ask meanwhile. */
function calmly(work, pause = 300) {
  let timer = 0;
  let running = false;
  const ask = () => {
    if (running || timer) return;
    timer = setTimeout(async () => {
      [timer, running] = [0, true];
      await work();
      running = false;
    }, pause);
  };
  return ask;
}

/** Begin for who is logged in now. */
export function begin() {
  end();
  timers = [again(lookAround, LOOK), again(lookAtNews, 1000), hear((row) => {
    if (row.event === "hello" && row.missed) readAll();
    else if (may.look && row.serial && NEWS.has(row.event)) news.add(row.serial);
  })];
  readAll();
}

export function end() {
  for (const stop of timers) stop();
  timers = [];
  reads.abort();
  news.clear();
  fleet.rows.clear();
  Object.assign(fleet, { reading: false, whole: false, problem: "" });
}

export { again, calmly };
