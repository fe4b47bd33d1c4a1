// ---- building the document: what comes from the data goes in as text, never as markup

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

// A long arm may break before a variant.
const armText = (arm) => arm.split("+").map((part, i) => (i ? [el("wbr"), whole(`+${part}`)] : whole(part)));
const whole = (text) => el("span", { class: "whole" }, text);
const el = (tag, props = {}, ...children) => fill(document.createElement(tag), props, children);
const svg = (tag, props = {}, ...children) => fill(document.createElementNS(SVG, tag), props, children);
const byId = (id) => document.getElementById(id);
const mono = (text, name = "mono") => el("span", { class: name }, text);
const td = (content, name = null) => el("td", { class: name }, content);
const right = (content) => td(content, "right");
const rowHead = (content) => el("th", { scope: "row", class: "mono" }, content);
const button = (text, onclick, props = {}) => el("button", { type: "button", class: "button", onclick, ...props }, text);

// Texts of a table's head; `align` tells by place which columns hold numbers.
function tableHead(texts, align = () => false) {
  return el("thead", {}, el("tr", {}, texts.map((text, i) => el("th", { scope: "col", class: align(i) ? "right" : null }, text))));
}

// What is wider than the screen scrolls in itself, by keyboard too.
function scroller(label, head, lines, props = {}) {
  const table = el("table", props, head, el("tbody", {}, lines));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

// ---- the data

const DATA = JSON.parse(byId("data").textContent);
const place = (...parts) => parts.join("\n");
const objects = ({ columns, rows }) => rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])));
const unique = (values) => [...new Set(values)];
const RUNS = new Map();
for (const run of objects(DATA.runs)) {
  const at = place(run.protocol, run.family, run.size, run.arm);
  if (!RUNS.has(at)) RUNS.set(at, []);
  RUNS.get(at).push(run);
}
const SIZES = ["tiny", "small", "base", "large", "huge", "giant"];
const VERDICTS = ["success", "mixed", "inconclusive", "failure", "= standard", "no verdict", "baseline"];

function prepared(board) {
  const arms = new Map(board.arms.map((arm, order) => [arm.name, { ...arm, order }]));
  const families = new Map(board.families.map((each, i) => [each.family, i]));
  const bySize = (a, b) => ordered(sizeOrder(a.size), sizeOrder(b.size));
  const byArm = (a, b) => arms.get(a.arm).order - arms.get(b.arm).order;
  const order = (a, b) => families.get(a.family) - families.get(b.family) || bySize(a, b) || byArm(a, b);
  const cells = objects(board.cells).map((cell) => preparedCell(cell, arms.get(cell.arm))).sort(order);
  for (const each of board.families) each.rows.sort((a, b) => bySize(board.rows[a], board.rows[b]));
  const transfers = board.arms.filter((arm) => arm.listed && arm.transfers).map((arm) => arm.name);
  return { ...board, arms, cells, transfers, scale: scaleOf(board) };
}

function preparedCell(cell, arm) {
  const half = cell.simultaneous95_low === null ? null : (cell.simultaneous95_high - cell.simultaneous95_low) / 2;
  const kind = cell.verdict ?? (arm.transfers ? "no verdict" : "baseline");
  return { ...cell, half, kind, text: searchable([cell.family], cell.size, cell.arm, kind) };
}

function searchable(names, size, arm, kind) {
  return [...names, ...names.map(title), size, arm, kind].join(" ").toLowerCase();
}

const title = (family) => DATA.families[family]?.title ?? family;
const label = (row) => `${row.families.map(title).join(", ")} ${row.size}`;
const runsOf = (board, family, size, arm) => RUNS.get(place(board.protocol, family, size, arm)) ?? [];
const rowOf = (board, family, size) => board.rows.find((row) => row.size === size && row.families.includes(family));
const entryKind = (entry) => entry.note || entry.gap?.[3] || "no verdict";

function fileOf(run) {
  const path = [run.protocol, run.family, run.size, `${run.arm}-s${run.seed}.json`].map(encodeURIComponent).join("/");
  return `${DATA.results}/${path}`;
}

function fileLink(run, text) {
  return el("a", { href: fileOf(run), "aria-label": `result file of seed ${run.seed}, ${run.arm}` }, text);
}

// ---- numbers as text

const known = (value) => value !== null && value !== undefined;
const fixed = (value, digits = 1) => (known(value) ? value.toFixed(digits).replace("-", "−") : "–");

function signed(value, digits = 1) {
  if (!known(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}

function gapText(gap, digits = 1) {
  if (!gap) return "–";
  return signed(gap[0], digits) + (known(gap[2]) ? ` ± ${fixed(gap[2], digits)}` : "");
}

const plainText = (estimate) => (estimate ? signed(estimate[0]) + (known(estimate[1]) ? ` ± ${fixed(estimate[1])}` : "") : "–");
const reversalText = (entry) => (entry.reversal ? `reversal ${plainText(entry.reversal)}` : "");
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// ---- scales

function scaleOf(content) {
  return scaleOver(content.rows.flatMap((row) => Object.values(row.entries)).flatMap(({ gap }) => (gap ? [gap] : [])));
}

function scaleOver(estimates) {
  const values = estimates.flatMap(ends);
  const low = Math.max(-100, Math.min(0, ...values.map(([least]) => least)));
  const high = Math.min(100, Math.max(0, ...values.map(([, most]) => most)));
  const room = 0.04 * (high - low || 10);
  const scale = { low: low - room, high: high + room };
  const { ticks } = nice(low, high === low ? low + 1 : high, 3);
  return { ...scale, ticks: ticks.filter((tick) => tick >= scale.low && tick <= scale.high) };
}

const ends = ([value, plain, simultaneous]) => [[value - (simultaneous ?? plain ?? 0), value + (simultaneous ?? plain ?? 0)]];

function nice(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  const first = Math.floor(low / step + 1e-9) * step;
  const last = Math.ceil(high / step - 1e-9) * step;
  const ticks = [];
  for (let i = 0; first + i * step <= last + step / 1e6; i++) ticks.push(Number((first + i * step).toFixed(6)));
  return { low: first, high: last, ticks };
}

const percent = (scale, value) => ((value - scale.low) / (scale.high - scale.low)) * 100;
const inside = (scale, value) => `${Math.min(100, Math.max(0, percent(scale, value)))}%`;

// ---- verdicts, by shape, sign, word and colour

const CLASS = {
  "= standard": "same", "no verdict": "none", baseline: "none", "as claimed": "claimed", "not contradicted": "open", "not testable here": "none", "": "none",
};
const classOf = (kind) => CLASS[kind] ?? kind;
const SHAPES = {
  success: "M0,-6 L5.5,4.5 L-5.5,4.5 Z",
  failure: "M0,6 L5.5,-4.5 L-5.5,-4.5 Z",
  mixed: "M0,-7 L7,0 L0,7 L-7,0 Z",
  inconclusive: "M-4.5,0 a4.5,4.5 0 1,0 9,0 a4.5,4.5 0 1,0 -9,0 Z",
  claimed: "M-5,0 a5,5 0 1,0 10,0 a5,5 0 1,0 -10,0 Z",
  contradicted: "M-6,-4 L-4,-6 L0,-2 L4,-6 L6,-4 L2,0 L6,4 L4,6 L0,2 L-4,6 L-6,4 L-2,0 Z",
  open: "M-4.5,0 a4.5,4.5 0 1,0 9,0 a4.5,4.5 0 1,0 -9,0 Z",
  none: "M-4,-4 H4 V4 H-4 Z",
};

// A place at a share of the strip's width, whatever that is: its content has the origin there.
const at = (x, ...content) => svg("svg", { x, y: "50%", overflow: "visible", width: 1, height: 1 }, content);

function shape(kind, x = "50%", size = 1) {
  const name = classOf(kind);
  return at(x, svg("path", { class: `shape ${name}`, d: SHAPES[name] ?? SHAPES.none, transform: `scale(${size})` }));
}

function badge(kind) {
  const mark = kind in DATA.marks ? el("span", { class: "mark", "aria-hidden": "true" }, DATA.marks[kind]) : null;
  return el("span", { class: `badge ${classOf(kind)}` }, mark, kind);
}

// The outcome of a claim, and how many of its differences have it. The word begins with the sign.
function outcomeBadge(outcome, word = outcome) {
  if (!word) return "–";
  const sign = DATA.marks[outcome] ?? "";
  const mark = sign ? el("span", { class: "mark", "aria-hidden": "true" }, sign) : null;
  const text = sign && word.startsWith(sign) ? word.slice(sign.length).trim() : word;
  return el("span", { class: `badge long ${classOf(outcome ?? "")}` }, mark, text);
}

const marked = (kind, text) => `${DATA.marks[kind] ?? ""} ${text}`.trim();

function legend(kinds = ["success", "failure", "inconclusive", "no verdict"], ...description) {
  const drawn = (kind) => svg("svg", { width: 16, height: 16, "aria-hidden": "true" }, shape(kind));
  const item = (kind) => el("li", {}, drawn(kind), marked(kind, kind));
  return el("ul", { class: "legend" }, kinds.map(item), description.map((text) => el("li", {}, text)));
}
