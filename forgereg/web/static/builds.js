// Keep the list of builds up to date.
import { listen, show } from "./live.js";

const list = document.getElementById("list");
listen(() => list.dataset.events, { list: (event) => show(list, event.data) });
