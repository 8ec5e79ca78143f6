import { render } from "preact";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/page.css";
import "./styles/machine.css";
import { App } from "./app/App.tsx";
import { PageStore } from "./app/store.ts";

// A file dropped where nobody takes it would replace the page, and with it the machine.
for (const name of ["dragover", "drop"] as const) {
  addEventListener(name, (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
}

const store = new PageStore();
const root = document.getElementById("page");
if (root) render(<App store={store} />, root);
void store.load();
