(async () => {
"use strict";
const by = id => document.getElementById(id);
const section = by("explorer");
if (!section || typeof DecompressionStream === "undefined") return;

// ---- the docs: columns of equal length --------------------------------------------------------------------------
await new Promise(painted => requestAnimationFrame(() => setTimeout(painted)));
const bytes = Uint8Array.from(atob(by("explorer-data").textContent), char => char.charCodeAt(0));
const unzipped = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
const docs = JSON.parse(await new Response(unzipped).text());
const scopes = JSON.parse(section.dataset.scopes);
const N = docs.task.length, all = Array.from(docs.task, (_, i) => i);
const isKnown = i => docs.confidence[i] !== null && docs.correct[i] >= 0;
const surest = all.slice().sort((i, j) => (docs.confidence[j] ?? -1) - (docs.confidence[i] ?? -1) || i - j);
const orders = { data: all, down: surest, up: surest.slice().reverse() };
let lower = null;
const textOf = i => {
  lower ??= all.map(j => [docs.question?.[j], docs.written?.[j], docs.right?.[j], ...(docs.choices?.[j] ?? [])].join("\n").toLowerCase());
  return lower[i];
};

// ---- what is shown: the state, which is the address's fragment, too ------------------------------------------------
const first = { scope: 0, outcome: "", from: 0, to: 1, text: "", sort: "down", doc: "", alone: 0 };
let state = { ...first }, shown = [], chosen = -1;
function fromAddress() {
  const [name, query] = location.hash.slice(1).split("?");
  if (name !== "explore" || query === undefined) return false;
  state = { ...first };
  for (const [key, value] of new URLSearchParams(query))
    if (key in first) state[key] = typeof first[key] === "number" ? Number(value) || 0 : value;
  if (!scopes[state.scope]) state.scope = 0;
  if (!orders[state.sort]) state.sort = "down";
  return true;
}
function toAddress() {
  const query = new URLSearchParams();
  for (const key in first) if (state[key] !== first[key]) query.set(key, state[key]);
  const hash = "#explore" + (query.size ? "?" + query : "");
  try { history.replaceState(null, "", hash); } catch { /* a page within a page has no address of its own */ }
}
function isOutcome(i, wanted) {
  if (wanted === "none") return !isKnown(i);
  if (wanted === "right" || wanted === "wrong") return outcomeOf(i) === wanted;
  return !wanted || docs.outcome[i] === wanted;
}
function matching() {
  const tasks = new Set(scopes[state.scope].tasks), words = state.text.trim().toLowerCase();
  const inRange = c => c >= state.from && (c < state.to || state.to >= 1);
  const isAnyRange = state.from <= 0 && state.to >= 1;
  return orders[state.sort].filter(i => {
    if (!tasks.has(docs.task[i])) return false;
    if (!isOutcome(i, state.outcome)) return false;
    if (!isAnyRange && (docs.confidence[i] === null || !inRange(docs.confidence[i]))) return false;
    return !words || textOf(i).includes(words);
  });
}

// ---- words ---------------------------------------------------------------------------------------------------------
const count = n => n.toLocaleString("en");
const percent = (share, digits = 0) => (100 * share).toFixed(digits) + "%";
const sure = c => c === null ? "–" : c < 1 && c > 0.995 ? percent(Math.min(c, 0.99994), 2) : percent(c, 1);
const outcomeOf = i => docs.correct[i] === 1 ? "right" : docs.correct[i] === 0 ? "wrong" : "unknown";
const signs = { right: "✓", wrong: "✗", unknown: "?" };
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const wordsOf = outcome => section.querySelector(`option[value="${outcome}"]`).textContent;
const keyOf = i => [docs.task[i], docs.id[i], docs.hash[i]].join("-");
const nameOf = i => scopes.find(scope => scope.task === docs.task[i]).label + ", doc " + (docs.id[i] ?? docs.hash[i]);

// ---- the list: only the rows in sight exist ------------------------------------------------------------------------
const list = by("explorer-list"), rows = list.firstElementChild, HEIGHT = 44;
function drawRows() {
  const start = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
  const end = Math.min(shown.length, start + Math.ceil(list.clientHeight / HEIGHT) + 10);
  rows.replaceChildren();
  for (let at = start; at < end; at++) {
    const i = shown[at], outcome = outcomeOf(i);
    const row = element("div", null, { role: "option", class: "row", id: "explorer-row-" + i, "aria-selected": at === chosen, "aria-setsize": shown.length, "aria-posinset": at + 1 });
    row.style.top = at * HEIGHT + "px";
    row.append(element("span", signs[outcome], { class: outcome === "wrong" ? "bad" : outcome === "right" ? "good" : "", "aria-label": outcome }),
      element("span", sure(docs.confidence[i])), element("span", (docs.question?.[i] || nameOf(i)).replace(/\s+/g, " ").slice(0, 160)));
    row.addEventListener("click", () => choose(at));
    rows.append(row);
  }
  if (chosen >= start && chosen < end) list.setAttribute("aria-activedescendant", "explorer-row-" + shown[chosen]);
  else list.removeAttribute("aria-activedescendant");
}
function choose(at, quietly) {
  if (!shown.length) { chosen = -1; state.doc = ""; drawRows(); drawDoc(); return; }
  chosen = Math.max(0, Math.min(shown.length - 1, at));
  const top = chosen * HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
  state.doc = quietly ? state.doc : keyOf(shown[chosen]);
  drawRows();
  drawDoc();
  if (!quietly) toAddress();
}
list.addEventListener("scroll", drawRows, { passive: true });
list.addEventListener("keydown", event => {
  const page = Math.floor(list.clientHeight / HEIGHT);
  const to = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: shown.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  choose(to);
});

// ---- one question --------------------------------------------------------------------------------------------------
function drawDoc() {
  const pane = by("explorer-doc");
  pane.replaceChildren();
  pane.hidden = chosen < 0;
  if (chosen < 0) return;
  const i = shown[chosen], outcome = outcomeOf(i);
  pane.append(element("h3", nameOf(i)));
  pane.append(element("p", { right: "Right", wrong: "Wrong", unknown: "Nobody can tell whether it is right" }[outcome] + (docs.confidence[i] === null ? `; it has no confidence${docs.outcome[i] ? ": " + wordsOf(docs.outcome[i]) : ""}.` : `, ${sure(docs.confidence[i])} sure.`), { class: outcome === "wrong" ? "bad" : outcome === "right" ? "good" : "" }));
  if (docs.question?.[i]) pane.append(element("pre", docs.question[i], { tabindex: 0, role: "region", "aria-label": "Question" }));
  if (docs.probs[i]) drawChoices(pane, i);
  else drawWritten(pane, i);
  pane.append(element("p", `hash ${docs.hash[i]}`, { class: "soft" }));
}
function drawChoices(pane, i) {
  docs.probs[i].forEach((p, k) => {
    const marks = [k === docs.answer[i] && "its answer", k === docs.gold[i] && "right"].filter(Boolean).join(", ");
    const line = element("div", null, { class: "choice" + (k === docs.answer[i] && k !== docs.gold[i] ? " wrong" : "") });
    const words = element("span", (docs.choices?.[i]?.[k] ?? `choice ${k + 1}`) || "(nothing)");
    if (marks) words.append(" ", element("strong", `(${marks})`));
    const strip = element("div", null, { class: "strip" }), fill = element("i");
    fill.style.width = percent(p, 2);
    strip.append(fill);
    line.append(element("span", percent(p, 1)), words, strip);
    pane.append(line);
  });
}
function drawWritten(pane, i) {
  if (docs.written?.[i] === "") pane.append(element("p", "It wrote nothing."));
  if (docs.written?.[i]) pane.append(element("p", "It wrote:"), element("pre", docs.written[i], { tabindex: 0, role: "region", "aria-label": "What the model wrote" }));
  if (docs.right?.[i]) pane.append(element("p", "Right answer:"), element("pre", docs.right[i], { tabindex: 0, role: "region", "aria-label": "Right answer" }));
  const tokens = docs.tokens[i];
  if (!tokens?.length) return;
  const mean = tokens.reduce((sum, p) => sum + p, 0) / tokens.length, span = docs.span[i];
  const said = `${count(tokens.length)} tokens, thought included: probability ${percent(mean)} on average, ${percent(Math.min(...tokens))} at least. The fainter, the surer` + (span ? "; with an edge: the final answer." : ".");
  pane.append(element("p", said, { class: "soft" }));
  const strip = element("div", null, { class: "tokens", role: "img", "aria-label": said });
  tokens.forEach((p, t) => {
    const shade = element("i", null, { title: `token ${t + 1}: ${percent(p)}`, class: span && t >= span[0] && t < span[1] ? "in" : "" });
    shade.style.opacity = Math.max(0.06, 1 - p);
    strip.append(shade);
  });
  pane.append(strip);
}

// ---- from which confidence on it answers alone ---------------------------------------------------------------------
function drawAlone() {
  const scope = scopes[state.scope], tasks = new Set(scope.tasks);
  let total = 0, answered = 0, wrong = 0;
  for (let i = 0; i < N; i++) {
    if (!tasks.has(docs.task[i]) || !isKnown(i)) continue;
    total++;
    if (docs.confidence[i] >= state.alone) { answered++; wrong += docs.correct[i] === 0; }
  }
  by("alone-from").value = state.alone;
  by("alone-shown").textContent = percent(state.alone, 1);
  by("alone-from").setAttribute("aria-valuetext", percent(state.alone, 1));
  by("alone-said").textContent = answered
    ? `It answers ${percent(answered / total)} of the questions (${count(answered)} of ${count(total)}); ${percent(wrong / answered, 1)} of these answers are wrong (${count(wrong)}).`
    : "It answers nothing.";
  by("alone-answered").style.width = percent(total ? answered / total : 0, 2);
  by("alone-wrong").style.width = percent(answered ? wrong / answered : 0, 2);
  by("alone-limit").hidden = scope.error_rate === null;
  if (scope.error_rate !== null) by("alone-limit").style.left = percent(scope.error_rate, 2);
  by("alone-promised").textContent = scope.error_rate === null ? "These shares are of the questions themselves: no promise for others."
    : scope.threshold === null ? `No threshold is guaranteed to have at most ${percent(scope.error_rate)} wrong answers on other questions; these shares are of the questions themselves.`
    : `Guaranteed: at most ${percent(scope.error_rate)} wrong answers from a confidence of ${scope.threshold.toFixed(3)} on. These shares are of the questions themselves.`;
  by("alone-marks").replaceChildren(...(scope.threshold === null ? [] : [element("option", null, { value: scope.threshold, label: "guaranteed" })]));
}

// ---- everything ----------------------------------------------------------------------------------------------------
const form = section.querySelector("form");
function drawForm() {
  for (const name of ["scope", "outcome", "text", "sort"]) if (form.elements[name]) form.elements[name].value = state[name];
  const plain = share => String(+(100 * share).toFixed(4));
  form.elements.from.value = state.from > 0 ? plain(state.from) : "";
  form.elements.to.value = state.to < 1 ? plain(state.to) : "";
}
function draw() {
  shown = matching();
  const known = shown.filter(isKnown), right = known.filter(i => docs.correct[i] === 1).length;
  const mean = known.reduce((sum, i) => sum + docs.confidence[i], 0) / known.length;
  by("explorer-count").textContent = `${count(shown.length)} of ${count(N)} questions`
    + (known.length ? `${known.length < shown.length ? `; of the ${count(known.length)} with a confidence and a label` : ":"} ${percent(right / known.length)} right, ${percent(mean)} sure on average.` : ".");
  rows.style.height = shown.length * HEIGHT + "px";
  list.scrollTop = 0;
  const at = state.doc ? shown.findIndex(i => keyOf(i) === state.doc) : 0;
  choose(Math.max(0, at), true);
  drawAlone();
}
function change(changes, go) {
  state = { ...state, doc: "", ...changes };
  drawForm();
  draw();
  toAddress();
  if (!go) return;
  section.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  list.focus({ preventScroll: true });
}
const share = (text, other) => text === "" || !Number.isFinite(Number(text)) ? other : Number(text) / 100;
form.addEventListener("input", event => {
  const { name, value } = event.target;
  if (name === "from") change({ from: share(value, 0) });
  else if (name === "to") change({ to: share(value, 1) });
  else change({ [name]: name === "scope" ? Number(value) : value });
});
// what was typed in the two fields of confidence must not be rewritten while it is typed
for (const name of ["from", "to"]) form.elements[name].addEventListener("input", event => {
  event.stopPropagation();
  state = { ...state, doc: "", [name]: share(event.target.value, first[name]) };
  draw();
  toAddress();
});
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", event => { event.preventDefault(); change({ ...first, alone: state.alone }); });
by("alone-from").addEventListener("input", event => { state.alone = Number(event.target.value); drawAlone(); toAddress(); });

// ---- the pictures lead here ----------------------------------------------------------------------------------------
function press(target, action) {
  target.addEventListener("click", action);
  target.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    action();
  });
}
function readout(svg) {
  const line = element("p", "", { class: "readout soft", "aria-live": "polite" });
  svg.after(line);
  return text => { line.textContent = text; };
}
for (const svg of document.querySelectorAll("svg.chart")) {
  const hits = svg.querySelectorAll(".hit"), curve = svg.querySelector("[data-points]");
  const scope = scopes.findIndex(one => one.name === svg.dataset.scope);
  if (!hits.length && !curve) continue;
  svg.setAttribute("role", "group");
  svg.classList.add("live");
  const say = readout(svg);
  for (const hit of hits) {
    const text = hit.querySelector("title").textContent;
    const of = hit.dataset.scope === undefined ? scope : scopes.findIndex(one => one.name === hit.dataset.scope);
    hit.setAttribute("tabindex", 0);
    hit.setAttribute("role", "button");
    hit.setAttribute("aria-label", text + "; show the questions");
    for (const kind of ["pointerenter", "focus"]) hit.addEventListener(kind, () => say(text));
    press(hit, () => change({ ...first, alone: state.alone, scope: of, from: Number(hit.dataset.from ?? 0), to: Number(hit.dataset.to ?? 1) }, true));
  }
  if (curve) followCurve(svg, curve, scope, say);
}
function followCurve(svg, curve, scope, say) {
  const points = JSON.parse(curve.dataset.points), mark = svg.querySelector(".follow");
  let at = points.length - 1;
  const go = to => {
    at = Math.max(0, Math.min(points.length - 1, to));
    const [coverage, risk, threshold] = points[at];
    mark.setAttribute("cx", 46 + 300 * coverage);
    mark.setAttribute("cy", 250 - 220 * risk);
    mark.removeAttribute("hidden");
    const text = `Answering the surest ${percent(coverage)}, from a confidence of ${threshold.toFixed(3)} on: ${percent(risk, 1)} wrong`;
    curve.setAttribute("aria-valuenow", Math.round(100 * coverage));
    curve.setAttribute("aria-valuetext", text);
    say(text);
  };
  for (const [key, value] of Object.entries({ tabindex: 0, role: "slider", "aria-label": "Share of questions that it answers; Enter shows the wrong ones", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 100 })) curve.setAttribute(key, value);
  curve.addEventListener("pointermove", event => {
    const box = curve.getBoundingClientRect(), coverage = (event.clientX - box.left) / box.width;
    const next = points.findIndex(point => point[0] >= coverage);
    go(next < 0 ? points.length - 1 : next);
  });
  curve.addEventListener("focus", () => go(at));
  curve.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -at, End: points.length }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    go(at + step);
  });
  press(curve, () => change({ ...first, scope, outcome: "wrong", from: points[at][2], alone: points[at][2] }, true));
}

section.hidden = false;
for (const link of document.querySelectorAll("a[href='#explore']")) link.closest("[hidden]")?.removeAttribute("hidden");
addEventListener("hashchange", () => { if (fromAddress()) { drawForm(); draw(); } });
const isLinked = fromAddress();
drawForm();
draw();
if (isLinked) section.scrollIntoView();
document.documentElement.dataset.explorer = "ready";
})();
