// ---- curves of a teacher

const HUES = { none: 0, copy: 1, distill: 2, finetune: 3 };

function hues(arms) {
  const few = unique(arms.map((arm) => arm.method)).length * 2 >= arms.length;
  return new Map(arms.map((arm, i) => [arm.name, `var(--c${few ? HUES[arm.method] ?? 4 : i % 8})`]));
}

function curves(family, size, arms, picked) {
  const colour = hues(arms);
  const chosen = new Set(firstCurves(arms, picked));
  const area = el("div", { class: "graph" });
  const lines = (arm) => runsOf(board, family, size, arm.name).map((run) => (
    { points: run.curve, colour: colour.get(arm.name), dash: arm.student === "matched", name: `${arm.name}, seed ${run.seed}` }));
  const draw = () => graph(area, "Learning curves", arms.filter((arm) => chosen.has(arm.name)).flatMap(lines), { x: "step" });
  const toggle = (arm) => button([sample(colour.get(arm.name), arm.student === "matched"), arm.name], (event) => {
    chosen[chosen.has(arm.name) ? "delete" : "add"](arm.name);
    event.currentTarget.setAttribute("aria-pressed", String(chosen.has(arm.name)));
    draw();
  }, { class: "toggle", "aria-pressed": String(chosen.has(arm.name)) });
  draw();
  return el("div", {}, el("div", { class: "toggles" }, arms.map(toggle)), area);
}

// Of few arms all; of many the one that was asked for, or the study's first, with its baseline.
function firstCurves(arms, picked) {
  if (arms.length <= 6) return arms.map((arm) => arm.name);
  const name = board.arms.has(picked) ? picked : board.transfers[0] ?? arms[0].name;
  return [name, board.arms.get(name).baseline];
}

function sample(colour, dash) {
  const line = svg("line", { class: dash ? "series dash" : "series", x1: 0, x2: 22, y1: 5, y2: 5 });
  line.style.setProperty("--hue", colour);
  return svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, line);
}

function legendOf(series) {
  const item = (each) => el("span", { class: "toggle" }, sample(each.colour, each.dash), each.name);
  return el("div", { class: "toggles small" }, series.map(item));
}

const cellOf = (family, size, arm) => board.cells.find((cell) => cell.family === family && cell.size === size && cell.arm === arm);

function budgets(family, size, arms) {
  const all = unique(arms.map((arm) => arm.line)).map((line) => arms.filter((arm) => arm.line === line));
  const lines = all.filter((own) => own.length > 2);
  if (!lines.length) return null;
  const colour = hues(lines.map((own) => own[0]));
  const point = (cell) => [cell.steps, cell.val];
  const series = lines.map((own) => ({
    points: own.map((arm) => cellOf(family, size, arm.name)).filter(Boolean).map(point).sort(([a], [b]) => a - b),
    colour: colour.get(own[0].name), dash: own[0].student === "matched", name: own[0].line, mean: true,
  }));
  const area = el("div", { class: "graph" });
  graph(area, "Top-1 on val by budget", series, { x: "steps of the budget" });
  return el("div", {}, el("h4", {}, "Mean top-1 on val by budget"), legendOf(series), area);
}

function meansByBlock(runs, field) {
  const lists = runs.map((run) => run[field]).filter((list) => list?.length);
  if (!lists.length) return null;
  return lists[0].map((_, i) => lists.reduce((sum, list) => sum + list[i], 0) / lists.length);
}

function byBlock(family, size, arms) {
  const draw = (field, heading, description) => {
    const all = arms.map((arm) => [arm, meansByBlock(runsOf(board, family, size, arm.name), field)]);
    const found = all.filter(([, means]) => means);
    return el("div", {}, el("h4", {}, heading), found.length ? blockGraph(found, heading) : el("p", { class: "small soft" }, description));
  };
  return el("div", { class: "two" },
    draw("kl", "Attention: divergence from the teacher's, by block",
      "No run of this teacher has it: only students that compute maps of their own do."),
    draw("dropped", "Attention mass dropped, by block", "Nothing is dropped: student and teacher have the same tokens."));
}

function blockGraph(found, heading) {
  const colour = hues(found.map(([arm]) => arm));
  const series = found.map(([arm, means]) => ({
    points: means.map((mean, i) => [i, mean]), colour: colour.get(arm.name), dash: arm.student === "matched", name: arm.name, mean: true,
  }));
  const area = el("div", { class: "graph" });
  graph(area, heading, series, { x: "block", whole: true });
  const count = Math.max(...found.map(([, means]) => means.length));
  const head = tableHead(["arm", ...Array.from({ length: count }, (_, i) => String(i))], (i) => i > 0);
  const lines = found.map(([arm, means]) => el("tr", {}, rowHead(armText(arm.name)), means.map((mean) => right(fixed(mean, 3)))));
  const numbers = [el("summary", {}, "Means over seeds as numbers"), scroller(`${heading}: numbers`, head, lines)];
  return el("div", {}, legendOf(series), area, el("details", { class: "small" }, numbers));
}

function graph(area, name, series, options) {
  const draw = () => {
    const some = area.clientWidth && series.some((each) => each.points.length);
    const none = nothing("Nothing chosen, or no points recorded.");
    area.replaceChildren(some ? lineChart(area.clientWidth, 250, name, series, options) : none);
  };
  area.observer?.disconnect();
  area.observer = new ResizeObserver(draw);
  area.observer.observe(area);
}

function lineChart(width, height, name, series, options) {
  const points = series.flatMap((each) => each.points).filter(([, y]) => known(y));
  const frame = { left: 42, right: width - 12, top: 10, bottom: height - 36 };
  const xs = options.whole ? wholeScale(points) : nice(0, Math.max(...points.map(([x]) => x), 1), 5);
  const ys = nice(0, Math.max(...points.map(([, y]) => y), 1e-3), 4);
  const x = (value) => frame.left + (percent(xs, value) / 100) * (frame.right - frame.left);
  const y = (value) => frame.bottom - (percent(ys, value) / 100) * (frame.bottom - frame.top);
  const lines = series.map((each) => drawnSeries(each, x, y));
  const props = { role: "img", "aria-label": `${name}: ${plural(lines.length, "line")}` };
  return svg("svg", props, axes(frame, xs, ys, x, y, options.x), lines);
}

function wholeScale(points) {
  const last = Math.max(...points.map(([x]) => x), 1);
  const step = Math.ceil((last + 1) / 12);
  return { low: 0, high: last, ticks: Array.from({ length: last + 1 }, (_, i) => i).filter((i) => i % step === 0) };
}

function axes(frame, xs, ys, x, y, name) {
  const across = ys.ticks.map((tick) => [
    svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y(tick), y2: y(tick) }),
    svg("text", { x: frame.left - 7, y: y(tick) + 4, "text-anchor": "end" }, String(tick))]);
  const below = (at, down, text) => svg("text", { x: at, y: frame.bottom + down, "text-anchor": "middle" }, text);
  return [across, xs.ticks.map((tick) => below(x(tick), 17, String(tick))), below((frame.left + frame.right) / 2, 33, name)];
}

function drawnSeries(each, x, y) {
  const points = each.points.filter(([, value]) => known(value)).map(([at, value]) => [x(at), y(value)]);
  const d = points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
  const path = svg("path", { class: `series${each.dash ? " dash" : ""}${each.mean ? " mean" : ""}`, d });
  const dots = points.length < 30 ? points.map(([cx, cy]) => svg("circle", { class: "dot", cx, cy, r: 2.4 })) : [];
  const group = svg("g", {}, svg("title", {}, each.name), path, dots);
  group.style.setProperty("--hue", each.colour);
  return group;
}
