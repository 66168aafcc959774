"use strict";
/* What the page shows. Text of models reaches it as text nodes only. */

const LONG = 20000;  // characters at a time: a megabyte at once would freeze the window
const $ = (id) => document.getElementById(id);
const file = document.body.dataset.name;
const params = new URLSearchParams(location.search);

let rater = params.get("rater") || document.body.dataset.rater;
let state = null;
let entries = [];
let pendingTie = false;
let busy = false;
const BREAK = 120000;  // longer without a hand on the page is not time spent on it
let milliseconds = 0;
let since = null;
let touched = 0;

const key = (what) => `llmkit/${file}/${rater}/${what}`;
const numAnswers = () => (state && state.turn ? state.turn.answers.length : 0);
const ordinal = (n) => `${n}${{ 1: "st", 2: "nd", 3: "rd" }[n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] || "th"}`;

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/* --- time spent looking at it --- */

function pauseClock() {
  if (since !== null) milliseconds += Math.min(performance.now(), touched + BREAK) - since;
  since = null;
}

function runClock() {
  if (since !== null || document.visibilityState !== "visible" || !$("results").hidden) return;
  since = touched = performance.now();
}

function touch() {
  const now = performance.now();
  if (since !== null && now - touched > BREAK) {
    pauseClock();
    since = now;
  }
  touched = now;
}

function spent() {
  pauseClock();
  runClock();
  return milliseconds;
}

/* --- what is shown --- */

function said(text) {
  $("status").textContent = text;
}

function warn(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

function text(content, name) {
  const box = make("div", { class: "said", dir: "auto", role: "group", "aria-label": name });
  if (!content.trim()) {
    box.append(make("span", { class: "muted" }, content ? "(only blanks)" : "(nothing)"));
    return box;
  }
  showMore(box, content);
  return box;
}

function showMore(box, content) {
  const [now, later] = [content.slice(0, LONG), content.slice(LONG)];
  box.append(now);
  if (!later) return;
  const more = make("button", { type: "button", class: "link", onclick: () => (more.remove(), showMore(box, later)) },
    `Show more: ${later.length.toLocaleString("en")} characters are left`);
  box.append(more);
}

/* What an answer with tools did before it said this: folded, one line a step until it is opened */
function before(steps, name) {
  return steps.map(({ kind, text: content }) =>
    make("details", { class: "step", "data-kind": kind },
      make("summary", {}, make("span", { class: "kind" }, kind), make("span", { class: "gist", dir: "auto" }, gist(content))),
      text(content, `${name}: ${kind}`)));
}

function gist(content) {
  return content.slice(0, 160).trim().replace(/\s+/g, " ") || "(nothing)";
}

function showTurn() {
  const { turn } = state;
  $("main").hidden = !turn || !$("results").hidden;
  if (!turn) return;
  $("prompt").querySelector(".messages").replaceChildren(...turn.prompt.map(({ role, content }) =>
    make("div", { class: `message ${role === "user" || role === "prompt" ? "asked-by" : ""}` },
      role === "prompt" ? "" : make("div", { class: "who" }, role), text(content, `Prompt, ${role}`))));
  $("answers").querySelector(".cards").replaceChildren(...turn.answers.map((content, place) =>
    make("article", { class: "card", "data-place": place },
      make("div", { class: "head" },
        make("button", { type: "button", class: "number", onclick: () => choose(place) }, `${place + 1}`),
        make("span", { class: "rank" })),
      make("div", { class: "whole" }, ...before(turn.before[place], `Answer ${place + 1}`),
        text(content, `Answer ${place + 1}`)))));
  for (const box of document.querySelectorAll("main .said")) {
    // what scrolls must be reached by keys
    if (box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
  }
  showOrder();
}

function showOrder() {
  letGo();
  const focused = document.activeElement && document.activeElement.dataset.focus;
  const ranks = Order.ranks(entries);
  const num = numAnswers();
  $("order").replaceChildren(...entries.map((entry, index) => orderedRow(entry, index, ranks)));
  const rest = [...Array(num).keys()].filter((place) => !ranks.has(place));
  $("rest").replaceChildren(...rest.map(restRow));
  $("hint").textContent = hint(rest);
  for (const card of document.querySelectorAll(".card")) showBadge(card, ranks);
  showFormula(entries);
  $("save").disabled = busy || rest.length > 1 || !entries.length;
  $("tie").disabled = busy || !entries.length || !rest.length;
  $("tie").setAttribute("aria-pressed", pendingTie);
  $("back").disabled = busy || !entries.length;
  for (const id of ["skip", "flag"]) $(id).disabled = busy;
  for (const id of ["undo", "undo-finished"]) $(id).disabled = busy || !state.last;
  const again = focused && document.querySelector(`[data-focus="${focused}"]`);
  if (again && !again.disabled) again.focus();
  else if (again) again.closest("li").querySelector("button:not(:disabled)")?.focus();
}

function showFormula(now) {
  $("formula").textContent = Order.formula(now, pendingTie) || "no order yet";
}

function hint(rest) {
  if (!entries.length) return "Press the numbers from best to worst, or drag.";
  if (rest.length === 1) return pendingTie ? "The one that is left ties with the last." : "The one that is left comes last.";
  return rest.length ? (pendingTie ? "Which one is as good as the last?" : "Which one is next?") : "Save with Enter.";
}

function showBadge(card, ranks) {
  const place = Number(card.dataset.place);
  const rank = ranks.get(place);
  const button = card.querySelector(".number");
  card.classList.toggle("placed", rank !== undefined);
  card.querySelector(".rank").textContent = rank === undefined ? "" : ordinal(rank);
  button.setAttribute("aria-label", rank === undefined
    ? `Answer ${place + 1}: put it next` : `Answer ${place + 1} is ${ordinal(rank)}: take it out`);
}

function tool(what, place, label, symbol, disabled, act) {
  const button = make("button", { type: "button", class: "tool", "data-focus": `${what}-${place}`, "aria-label": label, title: label, onclick: act }, symbol);
  button.disabled = disabled || busy;
  return button;
}

function grip() {
  return make("span", { class: "grip", "aria-hidden": "true", title: "Drag; or focus a row and press Alt and an arrow" }, "\u2807");
}

function snippet(place) {
  return make("span", { class: "snippet", dir: "auto" }, gist(state.turn.answers[place]));
}

function orderedRow({ place, tied }, index, ranks) {
  const n = place + 1;
  return make("li", { "data-place": place, class: tied ? "tied" : "" }, grip(),
    make("span", { class: "where" }, tied ? "=" : ordinal(ranks.get(place))),
    make("span", { class: "badge" }, `${n}`), snippet(place),
    make("span", { class: "tools" },
      tool("tie", place, tied ? `Answer ${n} is worse than the one above` : `Answer ${n} is as good as the one above`, "=", index === 0, () => changed(Order.toggle(entries, place))),
      tool("up", place, `Move answer ${n} up`, "\u2191", index === 0, () => moved(place, -1)),
      tool("down", place, `Move answer ${n} down`, "\u2193", index === entries.length - 1, () => moved(place, 1)),
      tool("out", place, `Take answer ${n} out`, "\u00d7", false, () => changed(Order.without(entries, place)))));
}

function restRow(place) {
  const n = place + 1;
  return make("li", { "data-place": place }, grip(), make("span", { class: "badge" }, `${n}`), snippet(place),
    make("span", { class: "tools" }, tool("next", place, `Put answer ${n} next`, "+", false, () => choose(place))));
}

function showProgress() {
  const { done, total, seconds } = state.progress;
  $("bar").max = Math.max(total, 1);
  $("bar").value = done;
  const pace = seconds === null ? "" : ` \u00b7 ${Math.round(seconds)} s each \u00b7 ${left((total - done) * seconds)}`;
  $("pace").textContent = `${done} of ${total} done${done < total ? pace : ""}`;
  $("rater").textContent = state.rater;
  document.title = state.turn ? `Rank: ${done + 1} of ${total}` : "Rank: all done";
  $("raters-known").replaceChildren(...state.raters.map((name) => make("option", { value: name })));
}

function left(seconds) {
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `about ${minutes} min left` : `about ${(minutes / 60).toFixed(1)} h left`;
}
