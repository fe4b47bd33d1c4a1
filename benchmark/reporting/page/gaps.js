// ---- the chart of gaps

const FACETS = 4;
const CAPTION = "A shape is a gap; the thick line is its plain 95 % interval, the thin line its simultaneous interval, which decides."
  + " An arrow marks an interval that goes on beyond the scale. Hover over a line or focus it for its seeds; click it or press"
  + " Enter for the teacher.";

function chartBlock() {
  return block("chart-block", "Gaps, and how sure they are", CAPTION,
    legend(),
    el("div", { id: "chart" }), el("div", { class: "more", id: "chart-more" }));
}

function drawChart() {
  const arms = board.transfers.filter((arm) => !state.arm || arm === state.arm);
  const lines = board.rows.map((row) => [row, fittingArms(row, arms)]).filter(([, fitting]) => fitting.length);
  const shown = lines.slice(0, shownTeachers);
  const long = arms.length > FACETS || arms.some((arm) => arm.includes("+"));
  const cell = (row, arm, fitting) => (fitting.includes(arm) ? gapCell(row, arm) : long ? null : el("div", {}));
  const chart = facets(arms, long, shown.map(([row, fitting]) => facetLine(row, arms.map((arm) => cell(row, arm, fitting)))));
  byId("chart").replaceChildren(shown.length ? chart : nothing("No transfer matches the filters."));
  const more = button(`Show all ${lines.length} teachers`, showAllTeachers);
  byId("chart-more").replaceChildren(...(lines.length > shown.length ? [more] : []));
}

function showAllTeachers() {
  shownTeachers = Infinity;
  drawChart();
  drawNative();
}

const nothing = (text) => el("p", { class: "empty" }, text);

function facets(columns, long, lines) {
  const heads = columns.map((text) => el("div", { class: "facet" }, el("b", { class: "mono" }, text), axis(board.scale)));
  const head = el("div", { class: "line head", "aria-hidden": "true" }, el("div", {}), heads);
  const chart = el("div", { class: long ? "facets long" : "facets" }, head, lines);
  chart.style.setProperty("--columns", columns.length);
  return chart;
}

function axis(scale) {
  return el("div", { class: "axis" }, scale.ticks.map((tick) => {
    const mark = el("span", {}, tick > 0 ? `+${tick}` : String(tick).replace("-", "−"));
    mark.style.left = `${percent(scale, tick)}%`;
    return mark;
  }));
}

function facetLine(row, cells) {
  const name = teacherButton(row.families[0], row.size, "", label(row));
  return el("div", { class: "line", "data-teacher": `${row.families[0]}/${row.size}` }, name, cells);
}

function gapCell(row, arm) {
  const entry = row.entries[arm];
  const { gap } = entry;
  if (!gap) return missing(arm, entry.note || (known(entry.score) ? `${board.measure} ${fixed(entry.score)}, no baseline` : "not run"));
  const kind = entryKind(entry);
  const beside = entry.reversal ? `${reversalText(entry)}, ` : "";
  const told = `${label(row)}, ${arm}: gap ${gapText(gap)}, ${kind}, ${beside}${plural(entry.n, "run")}`;
  const drawing = strip(board.scale, kind, interval(board.scale, gap), shape(kind, inside(board.scale, gap[0])));
  return tipped(row, arm, told, drawing, gapText(gap), () => {
    seedDots(drawing, row, arm);
    return gapTip(row, arm, entry, kind);
  });
}

function missing(arm, why) {
  return el("div", { class: "cell" }, el("div", { class: "nothing" }, mono(armText(arm), "arm mono"), why));
}

// A line of a chart: `told` says the same in words, `content` makes its tooltip.
function tipped(row, arm, told, drawing, value, content, name = arm) {
  const open = () => openDetail(row.families[0], row.size, arm);
  const parts = [mono(armText(name), "arm mono"), drawing, el("span", { class: "number" }, value)];
  const line = button(parts, open, { class: "plain", "aria-label": told, "aria-haspopup": "dialog" });
  const cell = el("div", { class: "cell", "data-arm": arm }, line);
  const show = () => showTip(cell, line, content);
  const onmouseleave = () => leave(cell, cell.matches(":focus-within"));
  const onfocusout = (event) => leave(cell, cell.contains(event.relatedTarget));
  return fill(cell, { onmouseenter: show, onfocusin: show, onmouseleave, onfocusout }, []);
}

function strip(scale, kind, ...content) {
  const lines = scale.ticks.map((tick) => vertical(scale, tick, tick === 0 ? "zero" : "grid"));
  return svg("svg", { class: `strip ${classOf(kind)}`, "aria-hidden": "true", focusable: "false" }, lines, content);
}

function vertical(scale, value, name) {
  const x = inside(scale, value);
  return svg("line", { class: name, x1: x, x2: x, y1: 0, y2: "100%" });
}

function interval(scale, [value, plain, simultaneous]) {
  const line = (half, name) => level(name, inside(scale, value - half), inside(scale, value + half));
  const stops = (half) => [end(scale, value - half, -1), end(scale, value + half, 1)];
  const wide = known(simultaneous) ? [line(simultaneous, "wide"), stops(simultaneous)] : null;
  return [wide, known(plain) ? line(plain, "tight") : null];
}

const level = (name, x1, x2) => svg("line", { class: name, x1, x2, y1: "50%", y2: "50%" });

// A cap where the interval ends, an arrow where it goes on beyond the scale.
function end(scale, value, side) {
  const x = inside(scale, value);
  if (value < scale.low || value > scale.high) return arrow(x, side);
  return svg("line", { class: "wide", x1: x, x2: x, y1: "26%", y2: "74%" });
}

const arrow = (x, side) => at(x, svg("path", { class: "end", d: `M${side * 5},0 L${-side * 3},-4 L${-side * 3},4 Z` }));

function seedDots(drawing, row, arm) {
  if (drawing.querySelector(".seed")) return;
  const { gap, score } = row.entries[arm];
  const dots = runsOf(board, row.families[0], row.size, arm).map((run) =>
    svg("circle", { class: "seed", cx: inside(board.scale, run.score - (score - gap[0])), cy: "82%", r: 2.2 }));
  drawing.append(...dots);
}

// ---- tooltips: beside their button in the document, so that Tab goes on to the links in them

let tip = null;
let dismissed = null;

function showTip(cell, button, content) {
  if (dismissed === cell || (tip && tip.parentNode === cell)) return;
  hideTip();
  tip = el("div", { class: "tip", id: "tip", role: "group", "aria-label": "Seeds" }, content());
  cell.append(tip);
  button.setAttribute("aria-describedby", "tip");
  const box = tip.getBoundingClientRect();
  const over = box.right - (document.documentElement.clientWidth - 10);
  if (over > 0) tip.style.left = `${-Math.min(over, box.left - 10)}px`;
  if (box.bottom > innerHeight && cell.getBoundingClientRect().top > box.height + 60) {
    tip.style.top = "auto";
    tip.style.bottom = "calc(100% - 2px)";
  }
}

function hideTip() {
  if (!tip) return;
  const gone = tip;
  tip = null; // before it goes: what has the focus in it tells of that
  gone.parentNode.querySelector("[aria-describedby]")?.removeAttribute("aria-describedby");
  gone.remove();
}

// By Esc it stays away until pointer and focus have left its line.
function dismissTip() {
  if (!tip) return;
  const cell = tip.parentNode;
  dismissed = cell;
  if (tip.contains(document.activeElement)) cell.querySelector("button").focus();
  hideTip();
}

function leave(cell, still) {
  if (still) return;
  if (dismissed === cell) dismissed = null;
  hideTip();
}

const MEANS = {
  success: "The whole simultaneous interval lies above 0.",
  failure: "The whole simultaneous interval lies below 0.",
  inconclusive: "The simultaneous interval contains 0.",
  "no verdict": "A single run, or judged on another leaderboard: a number without a verdict.",
};

function gapTip(row, arm, entry, kind) {
  const [value, plain] = entry.gap;
  const narrow = known(plain) ? ` Plain interval: ${signed(value)} ± ${fixed(plain)}.` : "";
  return [
    tipTitle(row, mono(arm)),
    el("p", {}, badge(kind), ` ${gapText(entry.gap)} points`),
    entry.reversal ? el("p", {}, `${reversalText(entry)} (plain)`) : null,
    el("p", { class: "soft" }, MEANS[kind] + narrow),
    el("p", { class: "soft" }, `Mean ${board.measure} ${fixed(entry.score)} %, baseline ${fixed(entry.score - value)} %.`),
    el("div", { class: "lines", tabindex: "-1" }, seedTable(runsOf(board, row.families[0], row.size, arm))),
  ];
}

const tipTitle = (row, what) => el("p", {}, el("b", {}, label(row)), el("br"), what);

function seedTable(runs) {
  const line = (run) => el("tr", {}, td(String(run.seed)), right(fixed(run.score, 2)), td(fileLink(run, "result file")));
  return el("table", {}, tableHead(["seed", board.measure, "file"], (i) => i === 1), el("tbody", {}, runs.map(line)));
}
