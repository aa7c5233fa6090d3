// Have a page told of what happens, and change what it shows without losing one's place.
import { tellAway } from "./away.js";

// Make one element like another, and keep what is the same: focus and selection stay.
export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  fill(old, [...fresh.childNodes]);
}

// Give an element other children, those with an id in place of the ones that had it.
function fill(old, fresh) {
  const named = new Map([...old.children].filter((each) => each.id).map((each) => [each.id, each]));
  const wanted = new Set(fresh.map((each) => each.id).filter(Boolean));
  for (const [id, each] of named) if (!wanted.has(id)) each.remove();
  let place = old.firstChild;
  for (const each of fresh) {
    const known = each.id && named.get(each.id);
    if (known && known !== place) old.insertBefore(known, place);
    const mine = known || place;
    if (!mine || (!known && mine.id)) {
      old.insertBefore(each, place);
      continue;
    }
    place = mine.nextSibling;
    morph(mine, each);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

export function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// Show a piece of the page as the server has written it just now.
export function show(element, html) {
  fill(element, [...parse(html).childNodes]);
}

// The same for pieces that each have an id, wherever on the page they are.
export function renew(html) {
  for (const each of [...parse(html).children]) morph(document.getElementById(each.id), each);
}

// Listen to a path; the browser comes again by itself, but not when it was turned away.
export function listen(path, on) {
  let source, later;
  const close = () => {
    clearTimeout(later);
    source?.close();
  };
  const open = () => {
    close();
    source = new EventSource(path());
    source.onopen = () => tellAway(false);
    source.onerror = () => {
      tellAway(true);
      if (source.readyState === EventSource.CLOSED) later = setTimeout(open, 5000);
    };
    for (const [name, hear] of Object.entries(on)) source.addEventListener(name, (event) => hear(event, close));
  };
  // A page that lies in the browser's memory is not to keep a connection.
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  open();
}
