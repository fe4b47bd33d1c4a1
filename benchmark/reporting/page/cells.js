// ---- every cell as a table

const ordered = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const sizeOrder = (size) => (SIZES.includes(size) ? String(SIZES.indexOf(size)) : `9${size}`);
const rangeText = (low, high) => (known(low) ? `${signed(low)} … ${signed(high)}` : "–");
const intervalText = (cell) => rangeText(cell.simultaneous95_low, cell.simultaneous95_high);
const rank = (kind) => (kind === "baseline" ? null : VERDICTS.indexOf(kind));
const COLUMNS = [
  { name: "family", head: "Family", value: (cell) => cell.family, text: (cell) => title(cell.family) },
  { name: "size", head: "Size", value: (cell) => sizeOrder(cell.size), text: (cell) => cell.size },
  { name: "arm", head: "Arm", value: (cell) => board.arms.get(cell.arm).order, text: (cell) => cell.arm, mono: true },
  { name: "n", head: "Runs", value: (cell) => cell.n, text: (cell) => String(cell.n), right: true },
  { name: "score", head: "Score", value: (cell) => cell.score, text: (cell) => fixed(cell.score), right: true },
  { name: "top1", head: "Top-1", value: (cell) => cell.top1, text: (cell) => fixed(cell.top1), right: true },
  { name: "gap", head: "Gap", value: (cell) => cell.gap, text: (cell) => signed(cell.gap), right: true },
  { name: "half", head: "±", value: (cell) => cell.half, text: (cell) => fixed(cell.half), right: true },
  { name: "interval", head: "95 % interval", value: (cell) => cell.simultaneous95_low, text: intervalText, right: true },
  { name: "verdict", head: "Verdict", value: (cell) => rank(cell.kind), text: (cell) => cell.kind },
];

const columnsHere = () => COLUMNS.filter(({ name }) => name !== "top1" || board.cells.some(({ top1 }) => known(top1)));

function sorted(cells) {
  const column = COLUMNS.find((each) => each.name === state.sort);
  if (!column) return cells;
  const sign = state.dir === "desc" ? -1 : 1;
  const compare = (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (!known(x) || !known(y)) return Number(!known(x)) - Number(!known(y)); // what is missing stands last, both ways
    return sign * ordered(x, y);
  };
  return [...cells].sort(compare);
}

function cellsBlock() {
  const caption = el("caption", { class: "hidden" }, `Every cell of ${board.title}`);
  const head = [caption, el("thead", {}, el("tr", {}, columnsHere().map(columnHead)))];
  const save = button("Download CSV of what is shown", download, { id: "download" });
  return block("cells-block", "Every cell",
    `Score (${board.measure}) in %; gap, ± and the simultaneous 95 % interval in percentage points. Click a row for its teacher.`,
    scroller("Every cell", head, [], { class: "rows", id: "cells" }),
    el("div", { class: "more" }, el("span", { id: "cells-more", class: "more" }), save),
    el("p", { class: "small soft" }, board.footnote));
}

function columnHead(column) {
  const sorter = button(column.head, () => sortBy(column), { class: "plain" });
  return el("th", { scope: "col", class: column.right ? "right" : null, "data-column": column.name, "aria-sort": "none" }, sorter);
}

function sortBy(column) {
  const first = column.right ? "desc" : "asc";
  state.dir = state.sort !== column.name ? first : state.dir === "asc" ? "desc" : "asc";
  state.sort = column.name;
  drawCells(sorted(filteredCells()));
  writeAddress();
}

function drawCells(cells) {
  for (const head of byId("cells").querySelectorAll("thead th")) {
    const way = state.dir === "desc" ? "descending" : "ascending";
    head.setAttribute("aria-sort", head.dataset.column === state.sort ? way : "none");
  }
  const body = byId("cells").tBodies[0];
  body.replaceChildren(...cells.slice(0, shownRows).map(cellRow));
  const none = el("td", { colspan: columnsHere().length, class: "empty" }, "Nothing matches the filters.");
  if (!cells.length) body.append(el("tr", {}, none));
  drawMore(cells);
}

function drawMore(cells) {
  const left = cells.length - shownRows;
  const show = (text, count) => button(text, () => {
    shownRows = count;
    drawCells(cells);
  });
  const told = el("span", { class: "soft small" }, `${shownRows} of ${cells.length} rows`);
  const more = [told, show(`Show ${Math.min(left, PAGE)} more`, shownRows + PAGE), show("Show all", Infinity)];
  byId("cells-more").replaceChildren(...(left > 0 ? more : []));
}

function cellRow(cell) {
  const [, ...rest] = columnsHere();
  const first = el("th", { scope: "row" }, teacherButton(cell.family, cell.size, cell.arm, title(cell.family)));
  const open = (event) => {
    const marking = String(getSelection()) !== "";
    if (!marking && !event.target.closest("button, a")) openDetail(cell.family, cell.size, cell.arm);
  };
  const props = { "data-family": cell.family, "data-size": cell.size, "data-arm": cell.arm, onclick: open };
  return el("tr", props, first, rest.map((column) => tableCell(cell, column)));
}

function tableCell(cell, column) {
  if (column.name === "verdict") return td(verdictText(cell.kind, rowOf(board, cell.family, cell.size)?.entries[cell.arm]));
  return td(column.text(cell), column.right ? "right" : column.mono ? "mono" : null);
}

function verdictText(kind, entry) {
  if (kind === "baseline") return el("span", { class: "soft" }, kind);
  return [badge(kind), entry?.reversal ? el("div", { class: "small soft whole" }, reversalText(entry)) : null];
}

// ---- CSV

function csvText(cells) {
  const { protocol, study } = board;
  const columns = ["protocol", "study", ...DATA.boards[BOARDS.indexOf(board)].cells.columns];
  const lines = cells.map((cell) => columns.map((name) => csvValue({ protocol, study, ...cell }[name])).join(","));
  return [columns.join(","), ...lines, ""].join("\n");
}

function csvValue(value) {
  const text = known(value) ? String(value) : "";
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download() {
  const address = URL.createObjectURL(new Blob([csvText(sorted(filteredCells()))], { type: "text/csv" }));
  el("a", { href: address, download: `${board.protocol}-${board.study}-shown.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
