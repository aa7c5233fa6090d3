// Say at the top of the page that the registry does not answer: what is shown may be over.

const notice = document.getElementById("away");
const main = notice.parentElement;

export function tellAway(isAway) {
  if (main.classList.contains("is-away") === isAway) return;
  main.classList.toggle("is-away", isAway);
  notice.textContent = isAway ? "The registry does not answer; trying again…" : "";
  for (const button of main.querySelectorAll('form[method="post"] button')) button.disabled = isAway;
}
