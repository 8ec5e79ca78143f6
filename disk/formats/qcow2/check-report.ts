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

  /** The image as `after` found it, and what this run and that one repaired and said. */
  with(after: Report): Report {
    const said = new Set(this.findings.map(({ message }) => message));
    const more = after.findings.filter(({ message }) => !said.has(message));
    const both = Object.assign(new Report(this.maxFindings), after, {
      leaksFixed: this.leaksFixed + after.leaksFixed, corruptionsFixed: this.corruptionsFixed + after.corruptionsFixed,
      findings: [...this.findings, ...more].slice(0, this.maxFindings), findingCount: this.findingCount + more.length,
    });
    return both;
  }
}
