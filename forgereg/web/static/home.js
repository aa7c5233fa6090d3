// Search as one types, and show what has changed since, as the server has rendered it.

const form = document.querySelector("form[role=search]");
const input = form.elements.q;
const count = document.getElementById("count");
let asking;
let typing;
let looking;

function results() {
  return document.getElementById("results");
}

function isInUse(element) {
  const selection = getSelection();
  return element.contains(document.activeElement) || (!selection.isCollapsed && selection.containsNode(element, true));
}

async function show(address, isByItself) {
  asking?.abort();
  asking = new AbortController();
  const part = new URL(address);
  part.searchParams.set("part", "results");
  try {
    const answer = await fetch(part, { signal: asking.signal });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const now = page.getElementById("results");
    const before = results();
    const isSame = before.isEqualNode(now);
    if (now && !isSame && !(isByItself && isInUse(before))) {
      const opened = [...before.querySelectorAll("details[open]")].map((each) => each.dataset.of);
      for (const each of now.querySelectorAll("details")) each.open = opened.includes(each.dataset.of);
      before.replaceWith(now);
    }
    if (now && count.textContent !== now.dataset.count) count.textContent = now.dataset.count;
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  lookAgain();
}

function lookAgain() {
  clearTimeout(looking);
  const seconds = Number(results().dataset.again);
  if (seconds) looking = setTimeout(() => show(location.href, true), seconds * 1000);
}

function search() {
  clearTimeout(typing);
  const address = new URL(location.href);
  address.searchParams.delete("page");
  const text = input.value.trim();
  if (text) address.searchParams.set("q", text);
  else address.searchParams.delete("q");
  history.replaceState(null, "", address);
  show(address, false);
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
lookAgain();
