// ---- what native components do

const METHODS = [["copy", "Copy"], ["distill", "Distillation"]];

function nativeBlock() {
  if (!board.rows.some((row) => row.native)) return null;
  return block("native-block", "What native components do",
    "From the gap of the standard student (small shape) to that of the matched one (large shape). The number is the reversal,"
    + " gap(matched) − gap(standard). Control: what the components do alone, matched-none − standard-none. Both with plain 95 %"
    + " intervals.",
    legend(),
    el("div", { id: "native" }));
}

function drawNative() {
  const area = byId("native");
  if (!area) return;
  const arms = METHODS.map(([method]) => `matched-${method}`).filter((arm) => arm in board.rows[0].entries);
  const lines = board.rows.filter((row) => row.native && fittingNative(row, arms)).slice(0, shownTeachers).map(nativeLine);
  const columns = [...METHODS.map(([, name]) => `${name}: standard → matched`), "control"];
  area.replaceChildren(lines.length ? facets(columns, false, lines) : nothing("No matched student matches the filters."));
}

// The filters for arm and verdict speak of single arms; here a line is a pair.
function fittingNative(row, arms) {
  const kinds = arms.map((arm) => entryKind(row.entries[arm]));
  const text = searchable(row.families, row.size, arms.join(" "), kinds.join(" "));
  return fitsTeacher(row.families, row.size) && words().every((word) => text.includes(word));
}

function nativeLine(row) {
  const cells = METHODS.map(([method, name]) => dumbbell(row, method, name, row.native[`matched-${method}`]));
  return facetLine(row, [...cells, controlCell(row, row.native["matched-none"])]);
}

function dumbbell(row, method, name, reversal) {
  const [from, to] = ["standard", "matched"].map((student) => row.entries[`${student}-${method}`]);
  if (!from?.gap || !to?.gap) return missing(name, to?.note || "not run");
  const [x1, x2] = [from, to].map((entry) => inside(board.scale, entry.gap[0]));
  const drawing = strip(board.scale, "none", level("join", x1, x2), shape(entryKind(from), x1, 0.75), shape(entryKind(to), x2));
  const gaps = `gap ${gapText(from.gap)} standard, ${gapText(to.gap)} matched`;
  const told = `${label(row)}, ${name}: ${gaps}, reversal ${plainText(reversal)}`;
  const content = () => pairTip(row, name, from, to, reversal);
  return tipped(row, `matched-${method}`, told, drawing, plainText(reversal), content, name);
}

function pairTip(row, name, from, to, reversal) {
  const line = (student, entry) => el("p", {}, `${student}: ${gapText(entry.gap)} `, badge(entryKind(entry)));
  const change = el("p", {}, `reversal: ${plainText(reversal)} (plain)`);
  return [tipTitle(row, name), line("standard", from), line("matched", to), change, nativeList(row.families, row)];
}

function controlCell(row, control) {
  if (!control) return missing("control", "not run");
  const [value, plain] = control;
  const drawing = strip(board.scale, "none", interval(board.scale, [value, plain, null]), shape("none", inside(board.scale, value)));
  const told = `${label(row)}, control: ${plainText(control)}`;
  const description = el("p", {}, `matched-none − standard-none: ${plainText(control)} (plain)`);
  const content = () => [tipTitle(row, "control"), description, nativeList(row.families, row)];
  return tipped(row, "matched-none", told, drawing, plainText(control), content, "control");
}

function nativeList(names, row) {
  const native = names.flatMap((name) => DATA.families[name]?.native ?? []);
  if (!native.length) return el("p", { class: "soft" }, "No native components: the matched student is the standard one.");
  const inert = (name) => (row.inert.includes(name) ? " (inert under Copy)" : "");
  const item = ([name, what]) => el("li", {}, mono(name), `: ${what}${inert(name)}`);
  return el("ul", { class: "list small" }, native.map(item));
}
