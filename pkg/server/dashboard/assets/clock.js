// The time by the server's clock, so that ages are right on a machine whose own
// clock is not.

/** Header Date counts whole seconds, so less than this says nothing. */
const tolerance = 2000;

let offset = 0;

/** @param {Response} response */
export function learnTime(response) {
  const server = Date.parse(response.headers.get('Date') ?? '');
  if (Number.isNaN(server)) return;
  const difference = server + 500 - Date.now();
  offset = Math.abs(difference) > tolerance ? difference : 0;
}

/** Milliseconds since 1970. */
export const now = () => Date.now() + offset;

/** Seconds since an RFC 3339 time; NaN without one. @param {string | null | undefined} time */
export const secondsSince = (time) => (now() - Date.parse(time ?? '')) / 1000;
