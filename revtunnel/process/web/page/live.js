// What happens, as it happens: one event stream for all tabs of a browser, which takes six connections to one
// server and no more. The tab that holds the lock reads it, and tells the others. It is read by fetch: EventSource
// wants every name of an event beforehand, and does not say why it was refused.

import { get, may } from "./api.js";

const KEPT = 500;
const AGAIN = 5000; // ms until another try
export const events = []; // the newest first
const hearers = new Set();
let reading = false; // here, not in another tab
let stopped = new AbortController();
let channel = null;
let state = "";

/** Be told of each event, and of `hello` and `missed`, `connected` and `lost`; gives the means to stop. */
export function hear(told) {
  hearers.add(told);
  return () => hearers.delete(told);
}

export const connected = () => state === "connected";

function tell(row) {
  if (row.event === "connected" || row.event === "lost") state = row.event;
  else if (row.event !== "hello") {
    events.unshift(row);
    events.length = Math.min(events.length, KEPT);
  }
  for (const told of [...hearers]) told(row);
}

function spread(row) {
  tell(row);
  channel?.postMessage(row);
}

/** Begin for who is logged in now. */
export function start(name) {
  stop();
  stopped = new AbortController();
  const { signal } = stopped;
  if (!("locks" in navigator)) {
    read(signal);
    return;
  }
  channel = new BroadcastChannel(`revtunnel ${name}`);
  channel.onmessage = ({ data }) => (data.event === "who" ? reading && channel.postMessage({ event: state }) : tell(data));
  channel.postMessage({ event: "who" });
  navigator.locks.request(`revtunnel ${name}`, { signal }, () => read(signal)).catch(() => {});
}

export function stop() {
  stopped.abort();
  channel?.close();
  channel = null;
  events.length = 0;
  state = "";
}

/** Read until told to stop; the lock is held for as long. */
async function read(signal) {
  let last = "";
  reading = true;
  while (!signal.aborted) {
    try {
      last = await once(last, signal);
    } catch (error) {
      if (signal.aborted) break;
      await get("/my").catch(() => {}); // whether it is the login that is over
    }
    if (state !== "lost" && !signal.aborted) spread({ event: "lost" });
    await new Promise((over) => {
      const timer = setTimeout(over, AGAIN);
      signal.addEventListener("abort", () => over(clearTimeout(timer)));
    });
  }
  reading = false;
}

/** One connection to its end; the number of the last event. */
async function once(last, signal) {
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  const path = may.look ? "/api/v1/events" : "/api/v1/my/events";
  const answer = await fetch(path, { headers, signal, cache: "no-store", credentials: "same-origin", redirect: "error" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  spread({ event: "connected" });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return last;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const said = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (said.id) last = said.id;
      if (said.event === "over") return last;
      if (said.data) spread(said.event === "hello" ? { event: "hello", missed: JSON.parse(said.data).missed } : JSON.parse(said.data));
    }
  }
}
