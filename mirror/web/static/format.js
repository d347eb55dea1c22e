// Formats values: short in the table, in full in the title of the cell.

const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export function number(text) {
  const value = Number(text);
  if (text === "nan" || Number.isNaN(value)) return text === "nan" ? "NaN" : text;
  if (text === "inf" || text === "-inf") return text.replace("inf", "∞");
  if (Number.isInteger(value) && !/[.e]/.test(text)) return Number.isSafeInteger(value) ? integers.format(value) : text;
  return float(value);
}

export function float(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    const [digits, exponent] = value.toExponential(3).split("e");
    return `${digits.replace(/\.?0+$/, "")}e${Number(exponent)}`;
  }
  if (Number.isInteger(value)) return integers.format(value);
  if (size >= 1000) return tenths.format(value);
  const short = value.toPrecision(4);
  return short.includes(".") ? short.replace(/\.?0+$/, "") : short;
}

export function count(value, word) {
  return `${integers.format(value)} ${word}${value === 1 ? "" : "s"}`;
}

// A duration in its two largest units.
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (part) => String(part).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d ${two(Math.floor((whole % 86400) / 3600))}h`;
}

export function age(iso) {
  const seconds = Math.floor((Date.now() - Date.parse(iso)) / 1000);
  // Written before a clock was set back, so the age is unknown.
  if (seconds < -60) return `at ${instant(iso)}, which is in the future`;
  if (seconds < 5) return "just now";
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([each]) => seconds >= each);
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

// The mirror's times are UTC without a zone; show them in local time.
export function instant(text) {
  const time = new Date(`${text.replace(" ", "T").replace(/Z$/, "")}Z`);
  if (Number.isNaN(time.getTime())) return text;
  const two = (part) => String(part).padStart(2, "0");
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${two(time.getHours())}:${two(time.getMinutes())}`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  let size = value;
  while (size >= 1000 && at < units.length - 1) {
    size /= 1000;
    at += 1;
  }
  return `${at ? tenths.format(size) : integers.format(size)} ${units[at]}`;
}
