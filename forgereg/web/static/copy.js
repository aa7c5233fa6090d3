// Let commands be copied: each button copies the code beside it, and says so.

const status = document.createElement("p");
status.className = "aside";
status.setAttribute("role", "status");
document.body.append(status);

async function copy(code) {
  const text = code.textContent;
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return true;
  }
  // Over plain HTTP browsers have no clipboard but this one.
  getSelection().selectAllChildren(code);
  return document.execCommand("copy");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  const label = button.querySelector("span");
  const done = await copy(code).catch(() => false);
  label.textContent = done ? "Copied" : "Select it";
  status.textContent = done ? "Copied to the clipboard" : "This browser does not let pages copy";
  setTimeout(() => {
    label.textContent = "Copy";
    status.textContent = "";
  }, 2000);
});

// Also those that come later, with what a live page shows.
function reveal() {
  for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}
new MutationObserver(reveal).observe(document.body, { childList: true, subtree: true });
reveal();
