// One Tab stop for a list of controls; the arrow keys, Home and End move within it.

export function roving(list, selector) {
  const controls = () => [...list.querySelectorAll(selector)].filter((control) => !control.disabled);
  const mark = (chosen) => {
    for (const control of controls()) control.tabIndex = control === chosen ? 0 : -1;
  };
  list.addEventListener("focusin", (event) => {
    const control = event.target.closest(selector);
    if (control) mark(control);
  });
  list.addEventListener("keydown", (event) => {
    const all = controls();
    const at = all.indexOf(event.target.closest(selector));
    const steps = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 };
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    all[Math.max(0, Math.min(all.length - 1, steps[event.key]))].focus();
  });
  // To be called when the controls have changed.
  return () => {
    const all = controls();
    const current = all.find((control) => control.getAttribute("aria-current") === "true");
    mark(all.find((control) => control === document.activeElement) ?? current ?? all[0]);
  };
}
