// What the server is asked: /api/v1, the logins, and listings page by page.

export class Problem extends Error {
  constructor(status, word, detail) {
    super(detail);
    this.status = status;
    this.word = word;
  }
}

export const my = { me: null }; // the row of /api/v1/my; null: nobody is logged in
const lost = [];

/** Be told when the login is over. */
export const onLost = (told) => lost.push(told);

async function send(method, path, body, signal) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && my.me) headers["X-CSRF-Token"] = my.me.csrf;
  const about = { method, headers, credentials: "same-origin", cache: "no-store", redirect: "error", signal };
  if (body !== undefined) about.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, about);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "the server does not answer");
  }
  const text = await answer.text().catch(() => "");
  let row = null;
  try {
    row = text ? JSON.parse(text) : null;
  } catch {
    throw new Problem(answer.status, "unreadable", "the answer cannot be read");
  }
  if (answer.ok) return row;
  throw new Problem(answer.status, row?.error ?? "failed", row?.detail ?? `status ${answer.status}`);
}

/** Log in, out, or in for the first time. */
export const post = (path, body) => send("POST", path, body);

/** How one may log in. */
export const ways = () => send("GET", "/login");

/** One call of the API; `path` below /api/v1. */
export async function call(method, path, body, signal) {
  try {
    return await send(method, `/api/v1${path}`, body, signal);
  } catch (error) {
    if (error.status === 401 && error.word === "login" && my.me) {
      my.me = null;
      for (const told of lost) told();
    }
    throw error;
  }
}

export const get = (path, signal) => call("GET", path, undefined, signal);

/** A path of the API with its parts and its query made safe: at`/devices/${serial}` */
export const at = (texts, ...parts) => texts.reduce((path, text, index) => path + encodeURIComponent(parts[index - 1]) + text);

export function query(path, about) {
  const said = Object.entries(about).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return said.length ? `${path}${path.includes("?") ? "&" : "?"}${new URLSearchParams(said)}` : path;
}

/** All rows of a listing, page after page; `most` of them. */
export async function* pages(path, signal, most = 50_000) {
  let after = "";
  let seen = 0;
  do {
    const page = await get(query(path, { after, limit: 200 }), signal);
    seen += page.rows.length;
    yield page.rows;
    after = page.next;
  } while (after && seen < most);
}

export async function all(path, signal, most = 5_000) {
  const found = [];
  for await (const rows of pages(path, signal, most)) found.push(...rows);
  return found;
}

const scopes = () => (my.me?.scope ?? "").split(" ");

/** What the person who is logged in may: `look` at everything, `act` for himself, `change` everything. */
export const may = {
  get look() {
    return my.me.role !== "person" && !scopes().includes("own");
  },
  get act() {
    return !scopes().includes("read");
  },
  get change() {
    return my.me.role === "admin" && !scopes().includes("own") && !scopes().includes("read");
  },
};
