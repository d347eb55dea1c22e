// What the parts of the page share: the view in the address, and what the daemon answered last.

import { showText } from "./dom.js";
import * as views from "./view.js";

export const session = {
  view: views.read(),
  state: null, // what /api/state answered
  known: null, // what /api/keys answered for the project
  source: null, // the runs that were found
  names: new Map(), // names of runs by path
  again: null, // what to do when the daemon, which did not answer, is back
};

export function change(fields) {
  Object.assign(session.view, fields);
  views.write(session.view);
}

// Show an error in a line of the page. What the page itself dropped is no error.
export function showError(line, error) {
  if (error.name !== "AbortError") showText(line, error.message);
}
