// ---- the head of the page

function drawTabs() {
  const several = unique(BOARDS.map((each) => each.protocol)).length > 1;
  byId("tabs").replaceChildren(...TABS.map((each) => tab(each, several)));
}

function tab(each, several) {
  const selected = each === board;
  return el("button", {
    type: "button", role: "tab", id: `tab-${TABS.indexOf(each)}`, "aria-selected": String(selected), "aria-controls": "panel",
    tabindex: selected ? "0" : "-1", onclick: () => choose(each), onkeydown: walkTabs,
  }, several ? `${each.protocol} · ${each.study}` : each.study);
}

function walkTabs(event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -TABS.indexOf(board), End: TABS.length - 1 - TABS.indexOf(board) };
  if (!(event.key in steps)) return;
  event.preventDefault();
  choose(TABS[(TABS.indexOf(board) + steps[event.key] + TABS.length) % TABS.length]);
  byId("tabs").querySelector("[aria-selected=true]").focus();
}

function choose(each) {
  board = each;
  state.protocol = state.study = state.sort = state.dir = state.open = state.section = "";
  keepValid();
  drawBoard();
  writeAddress();
}

function drawSays() {
  const description = board.description || "Its file says nothing about its numbers.";
  byId("description").replaceChildren(el("b", {}, `Protocol ${board.protocol}`), el("p", {}, description));
}

// ---- a leaderboard

function drawBoard() {
  shownRows = PAGE;
  shownTeachers = TEACHERS;
  drawTabs();
  drawSays();
  const panel = byId("panel");
  panel.setAttribute("aria-labelledby", `tab-${TABS.indexOf(board)}`);
  panel.replaceChildren();
  if (board.findings) {
    fill(panel, {}, [claimsHeading(), claimsBlock(), ...board.findings.filter(wasMeasured).map(findingBlock), notMeasuredBlock()]);
    return;
  }
  fill(panel, {}, [heading(), claimedBlock(), summaryBlock(), filterBlock(), chartBlock(), nativeBlock(), cellsBlock()]);
  drawFiltered();
}

function heading() {
  const teachers = board.families.reduce((sum, each) => sum + each.teachers, 0);
  const fact = (value, text) => el("li", {}, el("b", {}, String(value)), ` ${text}`);
  return el("div", {},
    el("h2", {}, board.title),
    el("ul", { class: "facts" },
      fact(board.families.length, board.families.length === 1 ? "family" : "families"),
      fact(teachers, teachers === 1 ? "teacher" : "teachers"),
      fact(board.runs, board.runs === 1 ? "run" : "runs"),
      fact(board.seeds, "runs per arm"),
      fact(board.comparisons, "comparisons that the intervals allow for")));
}

function block(id, heading, description, ...content) {
  return el("section", { class: "block", id, "aria-labelledby": `${id}-title` },
    el("h3", { id: `${id}-title` }, heading), description ? el("p", {}, description) : null, ...content);
}

// ---- light and dark

const THEME = "attention-transfer-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function storedTheme() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null; // a file may not be given any storage
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light theme" : "Dark theme";
}

function flipTheme() {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme(name);
  try {
    localStorage.setItem(THEME, name);
  } catch {
    // then it lasts as long as the page
  }
}

const followSystem = () => setTheme(storedTheme() ?? (dark.matches ? "dark" : "light"));
