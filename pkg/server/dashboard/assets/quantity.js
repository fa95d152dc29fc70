// Quantities of Kubernetes, and amounts in human-readable form.

/** @type {Record<string, number>} */
const suffixes = {
  n: 1e-9, u: 1e-6, m: 1e-3, '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18,
  Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60,
};

/**
 * The value of a quantity such as "500m", "1Gi" or "1e3"; NaN of anything else.
 * @param {string | undefined} text
 */
export function parseQuantity(text) {
  const parts = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?|[KMGTPE]i)$/.exec(text ?? '');
  return parts ? Number(parts[1]) * suffixes[parts[2]] : NaN;
}

/** @param {number} value @param {number} digits */
const rounded = (value, digits) => Number(value.toFixed(digits)).toString();

/** @param {number} value at most three digits */
const short = (value) => rounded(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);

/** @param {number} cores */
export const cores = (cores) => `${short(cores)} ${Math.abs(cores) === 1 ? 'core' : 'cores'}`;

/** @param {number} bytes */
export function bytes(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (Math.abs(bytes) >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${short(bytes)} ${units[unit]}`;
}

/**
 * A resource of a pod in human-readable form.
 * @param {string} name @param {number} value cores, bytes, or its own unit
 */
export function amount(name, value) {
  if (name === 'cpu') return cores(value);
  if (name === 'memory' || name.endsWith('storage')) return bytes(value);
  return short(value);
}

/** @param {number} fraction */
export const percent = (fraction) => `${Math.round(fraction * 100)}\u202f%`;

/** @param {number} seconds */
export function duration(seconds) {
  const s = Math.max(0, seconds);
  if (s > 0 && s < 0.95) return `${Math.max(1, Math.round(s * 1000))} ms`;
  if (s > 0 && s < 9.95) return `${rounded(s, 1)} s`;
  if (s < 99.5) return `${Math.round(s)} s`;
  const whole = Math.round(s);
  const pairs = /** @type {const} */ ([['d', 86400, 'h', 3600], ['h', 3600, 'min', 60], ['min', 60, 's', 1]]);
  const [big, bigSeconds, small, smallSeconds] = pairs.find(([, size]) => whole >= size) ?? pairs[2];
  const rest = Math.floor((whole % bigSeconds) / smallSeconds);
  return `${Math.floor(whole / bigSeconds)} ${big}${rest ? ` ${rest} ${small}` : ''}`;
}

/** Whole seconds, for times that tick. @param {number} seconds */
export const ticking = (seconds) => duration(Math.floor(Math.max(0, seconds)));
