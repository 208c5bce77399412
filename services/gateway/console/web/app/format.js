// Numbers, sizes and times in words. What is not known is a dash, never 0.

export const NONE = "–";
const KIB = 1024, MIB = KIB * 1024, GIB = MIB * 1024;

export function bytes(count) {
  if (count == null) return NONE;
  if (count >= 100 * GIB) return `${Math.round(count / GIB)} GiB`;
  if (count >= GIB) return `${(count / GIB).toFixed(1)} GiB`;
  if (count >= MIB) return `${Math.round(count / MIB)} MiB`;
  return count ? `${Math.round(count / KIB)} KiB` : "0";
}

export function gib(count) {
  return (count / GIB).toFixed(count >= 100 * GIB ? 0 : 1);
}

export function whole(count) {
  return count == null ? NONE : Math.round(count).toLocaleString("en");
}

export function brief(count) {
  if (count == null) return NONE;
  if (count >= 1e6) return `${(count / 1e6).toFixed(count >= 1e7 ? 0 : 1)}M`;
  if (count >= 1e4) return `${Math.round(count / 1e3)}k`;
  return whole(count);
}

export function tokens(count) {
  if (count == null) return NONE;
  return count >= 1024 && count % 1024 === 0 ? `${count / 1024}k` : brief(count);
}

export function rate(perSecond) {
  if (perSecond == null) return NONE;
  return perSecond >= 10 || perSecond === 0 ? String(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function milliseconds(ms) {
  if (ms == null) return NONE;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 100_000 ? `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s` : seconds(ms / 1000);
}

export function seconds(count) {
  if (count == null) return NONE;
  if (count < 90) return `${Math.max(0, Math.round(count))} s`;
  if (count < 5400) return `${Math.round(count / 60)} min`;
  return count < 172_800 ? `${Math.round(count / 3600)} h` : `${Math.round(count / 86_400)} d`;
}

export function share(part) {
  return part == null ? NONE : `${Math.round(part * 100)}%`;
}

export function ago(then, now) {
  return then == null ? NONE : `${seconds(Math.max(0, now - then))} ago`;
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString([], { hour12: false });
}

export function moment(time) {
  return time == null ? NONE : new Date(time * 1000).toLocaleString([], { hour12: false });
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}
