// ---- families at a glance

function summaryBlock() {
  const name = (arm) => el("th", { scope: "col", class: "mono" }, armText(arm));
  const texts = ["family", "teachers"].map((text) => el("th", { scope: "col" }, text));
  const head = el("thead", {}, el("tr", { role: "row" }, texts, board.transfers.map(name)));
  const props = { class: "summary", id: "summary", role: "table" };
  const table = scroller("Families and their verdicts", head, board.families.map(summaryRow), props);
  const notes = el("ul", { class: "small soft", id: "notes" }, board.notes.map((note) => el("li", {}, note)));
  return block("summary-block", "Verdicts by family",
    "A family's verdict is that of all its teachers; below it the range of their gaps, in percentage points.",
    el("div", { class: "tiles", id: "tiles" }, board.transfers.map(tile)), table, board.notes.length ? notes : null);
}

const familyKind = (verdict) => verdict ?? "no verdict";

function tile(arm) {
  const kinds = board.families.map((each) => familyKind(each.arms[arm][0]));
  const counted = VERDICTS.map((kind) => [kind, kinds.filter((each) => each === kind).length]).filter(([, count]) => count);
  const bars = counted.map(([kind, count]) => {
    const bar = el("i", { class: classOf(kind) });
    bar.style.flexGrow = count;
    return bar;
  });
  const counts = counted.map(([kind, count]) => el("li", {}, marked(kind, `${count} ${kind}`)));
  return el("div", { class: "tile" }, mono(armText(arm)), el("div", { class: "bar", "aria-hidden": "true" }, bars),
    el("ul", { class: "counts" }, counts));
}

function summaryRow(each) {
  const cells = board.transfers.map((arm) => el("td", { "data-label": arm, role: "cell" }, summaryCell(each.arms[arm])));
  const name = [mono(title(each.family), "name"), " ", mono(each.family, "mono soft"), sharing(each)];
  return el("tr", { "data-family": each.family, role: "row" }, el("th", { scope: "row", role: "rowheader" }, name),
    el("td", { class: "teachers", role: "cell" }, teacherButtons(each)), cells);
}

function summaryCell([verdict, low, high]) {
  const range = signed(low) === signed(high) ? signed(low) : rangeText(low, high);
  return [badge(familyKind(verdict)), known(low) ? el("span", { class: "number" }, range) : null];
}

function sharing(each) {
  const others = unique(each.rows.flatMap((i) => board.rows[i].families)).filter((family) => family !== each.family);
  return others.length ? el("div", { class: "small soft" }, `shares runs with ${others.map(title).join(", ")}`) : null;
}

function teacherButtons(each) {
  const buttons = each.rows.map((i) => teacherButton(each.family, board.rows[i].size, "", board.rows[i].size));
  return [`${each.teachers}: `, ...buttons.flatMap((button, i) => (i ? [", ", button] : [button]))];
}

function teacherButton(family, size, arm, text) {
  const props = { class: "plain teacher", "aria-haspopup": "dialog", "aria-label": `${title(family)} ${size}, details` };
  return button(text, () => openDetail(family, size, arm), props);
}

// ---- filters

function filterBlock() {
  const selects = [
    protocolFilter(), ...Object.entries(choices()).map(([name, values]) => filter(name, values)),
    button("Reset", reset, { id: "reset" }),
  ];
  const search = el("input", {
    type: "search", id: "filter-q", value: state.q, placeholder: "e.g. deit3 base success", autocomplete: "off", spellcheck: "false",
    oninput: (event) => setFilter("q", event.target.value),
  });
  return el("section", { class: "block", "aria-label": "Filters for the charts and the table" },
    el("div", { class: "filters" }, el("label", { class: "grow" }, "search", search), selects),
    el("p", { class: "count", id: "count", role: "status" }));
}

function protocolFilter() {
  const names = unique(BOARDS.map((each) => each.protocol));
  const change = (event) => choose(BOARDS.find((each) => each.protocol === event.target.value));
  return names.length < 2 ? null : select("protocol", names.map((name) => [name, name]), board.protocol, change);
}

function filter(name, values) {
  const text = (value) => (name === "family" && title(value) !== value ? `${title(value)} (${value})` : value);
  const options = [["", "all"], ...values.map((value) => [value, text(value)])];
  return select(name, options, state[name], (event) => setFilter(name, event.target.value));
}

function select(name, options, value, onchange) {
  const listed = options.map(([each, text]) => el("option", { value: each }, text));
  const choice = el("select", { id: `filter-${name}`, onchange }, listed);
  choice.value = value;
  return el("label", {}, name, choice);
}

function setFilter(name, value) {
  state[name] = value;
  shownRows = PAGE;
  shownTeachers = TEACHERS;
  drawFiltered();
  writeAddress();
}

function reset() {
  for (const name of [...FILTERS, "sort", "dir"]) state[name] = "";
  for (const name of FILTERS) byId(`filter-${name}`).value = "";
  setFilter("q", "");
}

const words = () => state.q.toLowerCase().split(/\s+/).filter(Boolean);

const fitsTeacher = (names, size) => (!state.family || names.includes(state.family)) && (!state.size || size === state.size);

function fits(names, size, arm, kind, text, wanted) {
  return fitsTeacher(names, size) && (!state.arm || arm === state.arm) && (!state.verdict || kind === state.verdict)
    && wanted.every((word) => text.includes(word));
}

function filteredCells() {
  const wanted = words();
  return board.cells.filter((cell) => fits([cell.family], cell.size, cell.arm, cell.kind, cell.text, wanted));
}

function fittingArms(row, arms) {
  const wanted = words();
  return arms.filter((arm) => {
    const kind = entryKind(row.entries[arm]);
    return fits(row.families, row.size, arm, kind, searchable(row.families, row.size, arm, kind), wanted);
  });
}

function drawFiltered() {
  const cells = sorted(filteredCells());
  byId("count").textContent = `Showing ${cells.length} of ${plural(board.cells.length, "cell")} (a family, size and arm each).`;
  drawChart();
  drawNative();
  drawCells(cells);
}
