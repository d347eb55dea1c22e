// Requests to the daemon. Responses are cached with their ETag, so that repeating a request costs almost nothing while nothing changed.
//
// Three things can go wrong, and only the last means that the daemon is gone: the page itself dropped the request (AbortError),
// the daemon refused it (Refused), or nobody answered (Unreachable).

const kept = new Map();
const MOST_KEPT = 60;

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export class Unreachable extends Error {}

export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) query.append(name, each);
  }
  const address = `${path}?${query}`;
  const former = kept.get(address);
  const answer = await send(address, { headers: former ? { "If-None-Match": former.etag } : {}, signal });
  if (answer.status === 304) return former.content;
  const content = await read(answer);
  const etag = answer.headers.get("etag");
  kept.delete(address);
  if (etag) kept.set(address, { etag, content });
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  return content;
}

export async function post(path, body, signal = undefined) {
  const headers = { "Content-Type": "application/json" };
  return read(await send(path, { method: "POST", headers, body: JSON.stringify(body), signal }));
}

async function send(address, options) {
  try {
    return await fetch(address, { ...options, cache: "no-store" });
  } catch (error) {
    throw unlessDropped(error);
  }
}

async function read(answer) {
  const fallback = { message: `the daemon answered ${answer.status}` };
  const content = await answer.json().catch((error) => {
    // An answer that is no JSON is an error page; one that breaks off is none.
    if (error.name === "SyntaxError" && !answer.ok) return fallback;
    throw unlessDropped(error);
  });
  if (!answer.ok) throw new Refused(content.message ?? fallback.message, answer.status);
  return content;
}

const unlessDropped = (error) => (error.name === "AbortError" ? error : new Unreachable("The daemon does not answer; trying again …"));
