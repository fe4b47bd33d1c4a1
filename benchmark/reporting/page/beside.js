// ---- what stands beside the measured: published figures, files that do not count

function drawBeside() {
  byId("beside").replaceChildren(...[publishedBlock(), leftOutBlock()].filter(Boolean));
}

function publishedBlock() {
  const { head, rows } = DATA.published;
  if (!rows.length) return null;
  const lines = rows.map((row) => el("tr", {}, row.map((text) => td(cited(text)))));
  const made = block("published-block", "Published by the papers, not measured here",
    "Other data, models and budgets than those above. Where the same thing was measured here, the last column has it.",
    scroller("Published figures", tableHead(head), lines));
  made.classList.add("published");
  return made;
}

// What names a paper on arXiv leads to it.
function cited(text) {
  const link = (part) => el("a", { href: `https://arxiv.org/abs/${part.match(/[\d.]+$/)[0]}`, rel: "noopener noreferrer" }, part);
  return text.split(/(arXiv:? ?\d{4}\.\d{4,5})/).map((part, i) => (i % 2 ? link(part) : part));
}

function leftOutBlock() {
  if (!DATA.leftOut.length) return null;
  const lines = el("ul", { class: "left-out", id: "left-out" }, DATA.leftOut.slice(0, PAGE).map((line) => el("li", {}, line)));
  const more = DATA.leftOut.length > PAGE ? el("p", { class: "small soft" }, `and ${DATA.leftOut.length - PAGE} more`) : null;
  return block("left-out-block", "Left out", `${plural(DATA.leftOut.length, "line")} on files that do not count.`, lines, more);
}
