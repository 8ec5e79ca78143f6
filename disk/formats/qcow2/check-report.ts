import type { CheckResult, Finding, FindingKind } from "../check.ts";

const COUNTERS = { leak: "leaks", corruption: "corruptions", error: "checkErrors" } as const;
const FIXED = { leak: "leaksFixed", corruption: "corruptionsFixed", error: "checkErrors" } as const;

/** Collects a check's result. Messages are made only while they are kept: a hostile image has millions of errors. */
export class Report {
  imageEndOffset = 0;
  totalClusters = 0;
  allocatedClusters = 0;
  fragmentedClusters = 0;
  compressedClusters = 0;
  leaks = 0;
  corruptions = 0;
  leaksFixed = 0;
  corruptionsFixed = 0;
  checkErrors = 0;
  findingCount = 0;
  readonly findings: Finding[] = [];

  constructor(readonly maxFindings: number) {}

  /** Counts `count` things found in one place. */
  add(kind: FindingKind, offset: number, repaired: boolean, message: () => string, count = 1): void {
    this[repaired ? FIXED[kind] : COUNTERS[kind]] += count;
    this.findingCount += count;
    if (this.findings.length < this.maxFindings) this.findings.push({ kind, message: message(), offset, repaired });
  }

  /** A corruption that stays. */
  corruption(offset: number, message: () => string, count = 1): void {
    this.add("corruption", offset, false, message, count);
  }

  /** A corruption that is repaired if `repaired`; QEMU begins both messages differently. */
  mendable(offset: number, repaired: boolean, message: () => string, count = 1): void {
    this.add("corruption", offset, repaired, () => `${repaired ? "Repairing" : "ERROR"} ${message()}`, count);
  }

  result(): CheckResult {
    const { maxFindings: _, ...result } = this;
    return result;
  }

  /** The state of the image as `after` found it, with what this report's run repaired and said. */
  repaired(after: CheckResult): CheckResult {
    const said = new Set(this.findings.map(({ message }) => message));
    const more = after.findings.filter(({ message }) => !said.has(message));
    return {
      ...after, leaksFixed: this.leaksFixed, corruptionsFixed: this.corruptionsFixed,
      findings: [...this.findings, ...more], findingCount: this.findingCount + more.length,
    };
  }
}
