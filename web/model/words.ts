const UNITS = ["bytes", "KB", "MB", "GB", "TB"];

/** `11.1 MB`: decimal, as download lists show it. */
export function bytes(count: number): string {
  let unit = 0, value = count;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

const STEPS: readonly [seconds: number, name: Intl.RelativeTimeFormatUnit][] = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });

/** `3 seconds ago`; `just now` below that. Times are ms since 1970. */
export function ago(time: number, now = Date.now()): string {
  const seconds = Math.round((now - time) / 1000);
  for (const [length, name] of STEPS) if (seconds >= Math.max(3, length)) return relative.format(-Math.floor(seconds / length), name);
  return "just now";
}
