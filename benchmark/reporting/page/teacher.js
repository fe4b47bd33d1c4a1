// ---- one teacher

function openDetail(family, size, arm) {
  state.open = [family, size, arm].join("/");
  if (!drawDetail()) state.open = "";
  writeAddress();
}

function drawDetail() {
  const [family, size, arm] = state.open.split("/");
  const row = rowOf(board, family, size);
  if (!row) return false;
  hideTip();
  const dialog = byId("detail");
  dialog.replaceChildren(detail(row, family, arm));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  return true;
}

function closeDetail() {
  state.open = "";
  writeAddress();
}

function detail(row, family, arm) {
  const arms = [...board.arms.values()].filter((each) => runsOf(board, family, row.size, each.name).length);
  const runs = arms.flatMap((each) => runsOf(board, family, row.size, each.name));
  const close = button("Close", () => byId("detail").close(), { id: "close", autofocus: true });
  return el("div", { class: "detail" },
    el("div", { class: "title" }, el("h2", { id: "detail-title" }, `${title(family)} ${row.size}`), close),
    aboutTeacher(row, family, runs),
    el("h4", {}, "Arms"), armTable(row, family, arms, arm),
    el("h4", {}, `Learning curves: ${board.metric} on the validation split by step, a line a seed`), curves(family, row.size, arms, arm),
    budgets(family, row.size, arms),
    byBlock(family, row.size, arms),
    el("h4", {}, "Runs"), runTable(runs, arm),
    el("h4", {}, "What made these numbers"), provenance(runs));
}

function aboutTeacher(row, family, runs) {
  const paper = DATA.families[family]?.paper ? [cited(DATA.families[family].paper), ". "] : null;
  const teachers = unique(runs.map((run) => run.teacher).filter(known)).map((i) => DATA.teachers[i]);
  const others = row.families.filter((name) => name !== family);
  return el("div", {},
    el("p", { class: "soft small" }, paper, `Protocol ${board.protocol}, study ${board.study}.`),
    others.length ? el("p", { class: "small" }, `Shares every run of the study with ${others.map(title).join(", ")}.`) : null,
    el("h4", {}, "Native components"), nativeList([family], row),
    el("h4", {}, teachers.length === 1 ? "Teacher" : "Teachers"),
    el("ul", { class: "list small" }, teachers.map(teacherItem)));
}

function teacherItem([source, version, top1, how]) {
  const measured = known(top1) ? `top-1 ${fixed(top1, 2)} %${how ? `, ${how}` : ""}` : "top-1 not measured";
  return el("li", {}, mono(source), `: ${measured}`, version ? mono(` ${version.slice(0, 12)}`, "mono soft") : null);
}

function armTable(row, family, arms, picked) {
  const sets = unique(Object.values(row.entries).flatMap((entry) => Object.keys(entry.shifted)));
  const texts = ["arm", "runs", board.measure, "gap", "verdict", ...sets.map((name) => `gap on ${name.replaceAll("_", " ")}`)];
  const lines = arms.map(({ name }) => armLine(name, row.entries[name], cellOf(family, row.size, name), sets, picked));
  return scroller("Arms", tableHead(texts, (i) => i > 0 && i !== 4), lines);
}

// Gaps on shifted sets are told with plain intervals and decide nothing.
function armLine(name, entry, cell, sets, picked) {
  const verdict = entry?.note || (cell?.kind ?? "baseline");
  return el("tr", { class: name === picked ? "picked" : null }, rowHead(armText(name)), right(String(cell?.n ?? "–")),
    right(fixed(cell?.score)), right(gapText(entry?.gap)), td(verdictText(verdict, entry)),
    sets.map((set) => td(plainText(entry?.shifted[set]), "right soft")));
}
