// Keep the page as it is now, while somebody looks at it.
import { tellAway } from "./away.js";

const SECONDS = 5;

// What somebody is reading aloud, copying or tabbing through stays as it is.
function isInUse(part) {
  const selection = getSelection();
  const isSelected = !selection.isCollapsed && selection.containsNode(part, true);
  return isSelected || part.contains(document.activeElement);
}

async function renew() {
  const answer = await fetch("/-/status/now", { signal: AbortSignal.timeout(SECONDS * 2000) });
  if (!answer.ok) throw new Error(answer.statusText);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of fresh.body.children) {
    const old = document.getElementById(part.id);
    if (old.innerHTML !== part.innerHTML && !isInUse(old)) old.replaceChildren(...part.childNodes);
  }
}

async function watch() {
  if (!document.hidden) {
    try {
      await renew();
      tellAway(false);
    } catch {
      tellAway(true);
    }
  }
  setTimeout(watch, SECONDS * 1000);
}
setTimeout(watch, SECONDS * 1000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) renew().then(() => tellAway(false), () => {});
});
