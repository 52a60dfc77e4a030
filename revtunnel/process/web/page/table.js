// A table of rows: few of them as they are; of many, those that are seen, each of one height. A row's elements
// are kept while its object is the same, so that what has the focus keeps it.

import { button, h, put } from "./dom.js";

const MANY = 120; // rows from which on only those that are seen are in the page
const BESIDE = 10; // rows above and below those
const FOCUS = "a, button"; // what may have the focus in a row
const words = new Intl.Collator("en", { numeric: true }); // plc-2 before plc-10

/**
 * columns: {title, cell(row), sort(row), kind: "number"|"wide"|"main"|"acts", hint}; `key(row)` is its name.
 * `sorted`: {column, down}, kept by the caller.
 */
export class Table {
  constructor({ label, columns, key, sorted = null, empty = "Nothing is here.", onsort }) {
    this.columns = columns;
    this.key = key;
    this.sorted = sorted;
    this.onsort = onsort ?? (() => this.set(this.given));
    this.empty = empty;
    this.given = [];
    this.rows = [];
    this.made = new Map();
    this.body = h("tbody", { role: "rowgroup" });
    this.top = h("tr", { class: "space", "aria-hidden": "true" });
    this.bottom = h("tr", { class: "space", "aria-hidden": "true" });
    this.nothing = h("p", { class: "nothing" });
    this.heads = columns.map((column, index) => this.head(column, index));
    this.table = h("table", { role: "table", "aria-label": label }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.heads)), this.body);
    this.chooser = this.choose();
    this.node = h("div", { class: "rows" }, this.chooser, this.table, this.nothing);
    this.look = () => {
      if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
    };
    window.addEventListener("scroll", this.look, { passive: true });
    window.addEventListener("resize", this.look);
  }

  stop() {
    window.removeEventListener("scroll", this.look);
    window.removeEventListener("resize", this.look);
    cancelAnimationFrame(this.frame);
  }

  head(column, index) {
    const about = { role: "columnheader", scope: "col", class: column.kind, title: column.hint };
    if (!column.sort || !this.sorted) return h("th", about, column.title);
    return h("th", about, button(column.title, () => this.turn(index, this.sorted.column === index && !this.sorted.down), { class: "sort" }));
  }

  /** The same choice where there is no room for heads. */
  choose() {
    if (!this.sorted) return null;
    const words = this.columns.flatMap((column, index) => (column.sort ? [[`${index} `, column.title], [`${index} down`, `${column.title}, downwards`]] : []));
    const select = h("select", { "aria-label": "Sort by", onchange: () => this.turn(Number.parseInt(select.value, 10), select.value.endsWith("down")) }, words.map(([value, text]) => h("option", { value }, text)));
    return h("div", { class: "chooser" }, "Sort by ", select);
  }

  turn(column, down) {
    Object.assign(this.sorted, { column, down });
    this.onsort();
  }

  /** Show these rows; they are sorted here. */
  set(rows) {
    this.given = rows;
    this.rows = rows;
    const { sorted } = this;
    if (sorted) {
      const value = this.columns[sorted.column].sort;
      const keyed = rows.map((row) => [value(row), row]);
      keyed.sort(([a, one], [b, other]) => compare(a, b, sorted.down) || compare(this.key(one), this.key(other)));
      this.rows = keyed.map(([, row]) => row);
      this.heads.forEach((head, index) => (index === sorted.column ? head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
      this.chooser.querySelector("select").value = `${sorted.column} ${sorted.down ? "down" : ""}`;
    }
    this.many = this.rows.length > MANY;
    this.table.classList.toggle("many", this.many);
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
    this.table.hidden = !this.rows.length;
    put(this.nothing, this.rows.length ? "" : this.empty);
    this.draw();
  }

  /** The rows that are in the page now. */
  get seen() {
    return this.rows.slice(...(this.range ?? [0, MANY]));
  }

  /** The height of a row, as the style has it. */
  get height() {
    return Number.parseFloat(getComputedStyle(this.table).getPropertyValue("--row")) || 44;
  }

  draw() {
    this.frame = 0;
    let [from, to] = [0, this.rows.length];
    if (this.many) {
      const tall = this.height;
      const above = -this.body.getBoundingClientRect().top;
      from = Math.max(0, Math.min(this.rows.length, Math.floor(above / tall) - BESIDE));
      to = Math.min(this.rows.length, Math.ceil((above + window.innerHeight) / tall) + BESIDE);
      to = Math.max(to, from);
      this.top.style.height = `${from * tall}px`;
      this.bottom.style.height = `${(this.rows.length - to) * tall}px`;
    }
    this.range = [from, to];
    const wanted = [];
    const kept = new Map();
    for (let index = from; index < to; index += 1) {
      const row = this.rows[index];
      const name = this.key(row);
      const before = this.made.get(name);
      const made = before?.row === row ? before : { row, node: this.line(row, before) };
      made.node.setAttribute("aria-rowindex", index + 2);
      kept.set(name, made);
      wanted.push(made.node);
    }
    this.made = kept;
    if (this.many) {
      wanted.unshift(this.top);
      wanted.push(this.bottom);
    }
    let place = this.body.firstChild;
    for (const node of wanted) {
      if (place === node) place = place.nextSibling;
      else this.body.insertBefore(node, place);
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  /** One row; where it was there before, only what differs is put in, and the focus stays where it was. */
  line(row, before) {
    const cells = this.columns.map((column) => h("td", { role: "cell", class: column.kind, "data-label": column.title }, column.cell(row)));
    if (!before) return h("tr", { role: "row" }, cells);
    const differs = JSON.stringify(row) !== JSON.stringify(before.row); // buttons look alike, and mean the old row
    cells.forEach((cell, index) => {
      const old = before.node.children[index];
      if (old.isEqualNode(cell) && !(differs && this.columns[index].kind === "acts")) return;
      const at = [...old.querySelectorAll(FOCUS)].indexOf(document.activeElement);
      old.replaceWith(cell);
      if (at >= 0) cell.querySelectorAll(FOCUS)[at]?.focus({ preventScroll: true });
    });
    return before.node;
  }
}

/** Which comes first; what is not known comes last either way. */
function compare(a, b, down = false) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  const order = typeof a === "string" ? words.compare(a, b) : a < b ? -1 : 1;
  return down ? -order : order;
}
