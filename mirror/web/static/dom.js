// Elements by script. Text is only ever set as text, so that no value of a run can become markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "colour") made.style.background = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Say something in a line that is hidden while there is nothing to say.
export function tell(line, text) {
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
}
