// Colours and dashes of curves. Each colour has a contrast above 3:1 with the light and with the dark ground of the page.

const COLOURS = [
  "#5578dd", "#bd7000", "#e5484d", "#1f9a86", "#9b5de5", "#4f9431", "#d6569a", "#2d8fd5", "#ad6c43", "#7c8591",
];
const DASHES = ["solid", "dash", "dot", "dashdot"];

// Curve number eleven has the colour of the first one, and is dashed.
export function look(slot) {
  return { colour: COLOURS[slot % COLOURS.length], dash: DASHES[Math.floor(slot / COLOURS.length) % DASHES.length] };
}

export function chip({ colour, dash }) {
  const made = document.createElement("span");
  made.className = "chip";
  const [on, off] = { solid: [12, 0], dash: [5, 2], dot: [2, 2], dashdot: [7, 2] }[dash ?? "solid"];
  made.style.background = `repeating-linear-gradient(90deg, ${colour} 0 ${on}px, transparent ${on}px ${on + off}px)`;
  return made;
}

export function transparent(colour, share) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${parts.join(", ")}, ${share})`;
}
