// Creates elements. Text is only set as text, never as HTML, so that no value of a run can become markup.

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

// Show a text in a line that is hidden while the text is empty.
export function showText(line, text) {
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
}
