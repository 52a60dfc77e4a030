// Small line charts of the last hour, as inline SVG; what they show is said in words, too.

import { get, query } from "./api.js";
import { age, h, put, shown, speed, trip } from "./dom.js";

const HOUR = 360; // samples
const LEAST = 30; // samples that a chart has room for, where few are known
const HIGH = 60;
const SVG = "http://www.w3.org/2000/svg";
const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString());

function svg(name, about, ...inside) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(about)) node.setAttribute(key, value);
  node.append(...inside);
  return node;
}

/** Sums that never fall as their growth in a second; null where it is not known. */
function growth(sums, step) {
  return sums.map((sum, index) => {
    const before = sums[index - 1];
    if (sum === null || before === null || before === undefined) return null;
    return Math.max(0, sum - before) / step;
  });
}

/** The path of one line; samples end at the right edge. */
function line(samples, most, wide) {
  const first = wide - samples.length;
  let text = "";
  let pen = "M";
  samples.forEach((value, index) => {
    if (value === null || value === undefined) {
      pen = "M";
      return;
    }
    text += `${pen}${first + index + 0.5} ${(HIGH - 2 - (value / most) * (HIGH - 6)).toFixed(1)}`;
    pen = "L";
  });
  return text && text.match(/L/) ? text : text && `${text}h1`;
}

function chart(title, lines, format, step) {
  const wide = Math.min(HOUR, Math.max(LEAST, ...lines.map(([, samples]) => samples.length)));
  const span = age(wide * step);
  const known = lines.flatMap(([, samples]) => samples.filter((value) => value !== null && value !== undefined));
  const most = Math.max(...known, 0) || 1;
  const said = lines.map(([name, samples]) => `${name ? `${name} ` : ""}${format(samples.at(-1) ?? null)}`);
  const words = known.length ? `${title}, last ${span}: now ${said.join(", ")}; at most ${format(Math.max(...known))}` : `${title}: nothing known yet`;
  const drawn = svg("svg", { viewBox: `0 0 ${wide} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": shown(words) });
  drawn.append(svg("path", { class: "grid", d: `M0 ${HIGH - 2}H${wide}M0 4H${wide}` }));
  lines.forEach(([, samples], index) => drawn.append(svg("path", { class: `line line-${index}`, d: line(samples, most, wide) })));
  const legend = lines.map(([name], index) => h("span", { class: `now now-${index}` }, said[index] || name));
  return h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, title), legend), drawn, h("p", { class: "span" }, h("span", {}, `${span} ago`), h("span", {}, known.length ? `most ${format(Math.max(...known))}` : ""), h("span", {}, "now")));
}

const SERVER = [
  ["Devices", ["devices"], whole],
  ["Bytes in a second", ["bytes_to_device", "bytes_to_client"], speed, ["to devices", "to clients"]],
  ["Clients", ["clients"], whole],
  ["Sessions of people", ["sessions"], whole],
];
const DEVICE = [
  ["Bytes in a second", ["bytes_to_device", "bytes_to_client"], speed, ["to the device", "to clients"]],
  ["Round trip", ["round_trip"], trip],
  ["Channels", ["channels"], whole],
];

/** Charts of the server, or of one device; `refresh` reads them anew. */
export function charts(serial) {
  const node = h("div", { class: "charts" });
  const refresh = async () => {
    const found = await get(query("/series", { serial }));
    put(node, (serial ? DEVICE : SERVER).map(([title, names, format, words]) => {
      const lines = names.map((name, index) => {
        const samples = found.series[name] ?? [];
        return [words?.[index] ?? "", format === speed ? growth(samples, found.step) : samples];
      });
      return chart(title, lines, format, found.step);
    }));
  };
  return { node, refresh };
}

