// ---- begin

function show() {
  readAddress();
  drawBoard();
  if (state.open && !drawDetail()) state.open = "";
  if (!state.open && byId("detail").open) byId("detail").close();
  if (state.section) reveal();
}

// By a link to another tab: to its begin.
function follow() {
  const before = board;
  show();
  if (board === before || state.section) return;
  byId("tabs").scrollIntoView();
  byId("panel").focus({ preventScroll: true });
}

function unfold() {
  for (const each of byId("panel").querySelectorAll("details")) each.open = true;
  if (board.findings) return;
  shownRows = shownTeachers = Infinity;
  drawFiltered();
}

function listen() {
  byId("theme").addEventListener("click", flipTheme);
  dark.addEventListener("change", followSystem);
  byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("panel").focus(); });
  byId("detail").addEventListener("close", closeDetail);
  byId("detail").addEventListener("click", (event) => event.target === byId("detail") && byId("detail").close());
  document.addEventListener("keydown", (event) => event.key === "Escape" && dismissTip());
  addEventListener("hashchange", () => board && follow());
  addEventListener("beforeprint", () => board && unfold());
}

BOARDS = DATA.boards.map(prepared);
TABS = withClaims(BOARDS);
board = BOARDS[0];
followSystem();
listen();
drawBeside();
if (board) show();
else {
  byId("description").hidden = true;
  byId("panel").append(nothing("No results to compare yet."));
}
