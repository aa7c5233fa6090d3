// Search as one types, and show what has changed since, as the server has rendered it.

import { morph, parse } from "./live.js";

// How often to look again where nothing is read or built.
const SECONDS = 10;

const form = document.querySelector("form[role=search]");
const input = form.elements.q;
const count = document.getElementById("count");
let asking;
let typing;
let looking;

function results() {
  return document.getElementById("results");
}

async function show(address) {
  clearTimeout(looking);
  asking?.abort();
  asking = new AbortController();
  const part = new URL(address);
  part.searchParams.set("part", "results");
  try {
    const answer = await fetch(part, { signal: asking.signal });
    const now = answer.ok && parse(await answer.text()).getElementById("results");
    if (now) {
      keep(results(), now);
      morph(results(), now);
      if (count.textContent !== now.dataset.count) count.textContent = now.dataset.count;
    }
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  lookAgain();
}

// What only this page knows is not to be undone by what the server has written.
function keep(before, now) {
  const opened = [...before.querySelectorAll("details[open]")].map((each) => each.dataset.of);
  for (const each of now.querySelectorAll("details")) each.open = opened.includes(each.dataset.of);
  for (const each of now.querySelectorAll("[data-copy]")) each.hidden = false;
}

function lookAgain() {
  clearTimeout(looking);
  if (document.hidden) return;
  const seconds = Number(results().dataset.again) || SECONDS;
  looking = setTimeout(() => show(location.href), seconds * 1000);
}

function search() {
  clearTimeout(typing);
  const address = new URL(location.href);
  address.searchParams.delete("page");
  const text = input.value.trim();
  if (text) address.searchParams.set("q", text);
  else address.searchParams.delete("q");
  history.replaceState(null, "", address);
  show(address);
}

input.addEventListener("input", (event) => {
  clearTimeout(typing);
  if (!event.isComposing) typing = setTimeout(search, 120);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  input.focus();
  input.select();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(looking);
  else show(location.href);
});
lookAgain();
