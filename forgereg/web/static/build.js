// Follow a build: how it stands, and its log, in which one can look for something.
import { listen, parse, renew } from "./live.js";

const MOST_LINES = 10000;
const told = document.getElementById("told");
const log = document.getElementById("log");
const follow = document.getElementById("follow");
const query = document.getElementById("q");

function atEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 8;
}

function toEnd() {
  log.scrollTop = log.scrollHeight;
}

function append(html) {
  const isFollowing = follow.checked;
  log.append(parse(html));
  if (isFollowing) toEnd();
  if (query.value) mark();
  // Once that is drawn: so what one sees does not move.
  setTimeout(trim, 100);
}

function trim() {
  const more = log.childElementCount - MOST_LINES;
  if (more <= 0) return;
  const below = log.scrollHeight - log.scrollTop;
  const gone = new Range();
  gone.setStart(log, 0);
  gone.setEndBefore(log.children[more + 1000]);
  gone.deleteContents();
  log.scrollTop = log.scrollHeight - below;
  const earlier = document.getElementById("earlier");
  earlier.href = `${log.dataset.path}?before=${log.querySelector("[id]").id.slice(3)}`;
  earlier.hidden = false;
}

if (log) {
  const isLive = "live" in log.dataset;
  const isLast = "last" in log.dataset;
  if (isLast) {
    toEnd();
    if (isLive) follow.closest("label").hidden = false;
    follow.addEventListener("change", () => follow.checked && toEnd());
    log.addEventListener("scroll", () => (follow.checked = atEnd()));
  }
  if (isLive) {
    let stop = log.dataset.stop;
    const on = {
      state: (event) => {
        renew(event.data);
        document.title = document.title.replace(/\S+ ·/, `${document.querySelector("#state .badge").textContent} ·`);
      },
      end: (event, close) => {
        close();
        told.textContent = "The build is over.";
      },
    };
    if (isLast) {
      on.log = (event) => {
        stop = event.lastEventId;
        append(event.data);
      };
    }
    listen(() => `${log.dataset.path}/events?from=${stop}`, on);
  }
}

// Mark what is looked for as one types; the form looks through the whole log.
let waiting;
function mark() {
  clearTimeout(waiting);
  waiting = setTimeout(markNow, 150);
}

function markNow() {
  const wanted = query.value.trim().toLowerCase();
  const lines = document.querySelector(".log");
  if (!lines || !globalThis.CSS?.highlights) return;
  CSS.highlights.delete("found");
  if (!wanted) return;
  const ranges = [];
  const walker = document.createTreeWalker(lines, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node && ranges.length < 5000; node = walker.nextNode()) {
    if (node.parentElement.className === "at") continue;
    const text = node.data.toLowerCase();
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
      const range = new Range();
      range.setStart(node, at);
      range.setEnd(node, at + wanted.length);
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
  if (document.activeElement === query) {
    told.textContent = `${ranges.length} marked here; Enter looks through the whole log.`;
  }
}
query.addEventListener("input", mark);
mark();
