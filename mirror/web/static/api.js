// Requests to the daemon. Responses are cached with their ETag, so that repeating a request costs almost nothing while nothing changed.

const kept = new Map();
const MOST_KEPT = 60;

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) query.append(name, each);
  }
  const address = `${path}?${query}`;
  const former = kept.get(address);
  const answer = await fetch(address, {
    headers: former ? { "If-None-Match": former.etag } : {},
    cache: "no-store",
    signal,
  });
  if (answer.status === 304) return former.content;
  const content = await read(answer);
  const etag = answer.headers.get("etag");
  kept.delete(address);
  if (etag) kept.set(address, { etag, content });
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  return content;
}

export async function post(path, body) {
  return read(
    await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      cache: "no-store",
    }),
  );
}

async function read(answer) {
  const content = await answer.json().catch(() => ({ message: `the daemon answered ${answer.status}` }));
  if (!answer.ok) throw new Refused(content.message ?? `the daemon answered ${answer.status}`, answer.status);
  return content;
}
